'use strict'

const assert = require('node:assert')
const { EventEmitter } = require('node:events')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const { test } = require('node:test')
const { Storage, readWithoutWriting } = require('../server/storage')

/** A storage with one world of one chunk; `save` is what its disk does. */
function storageOf (save) {
  const world = {
    savingQueue: new Map(),
    unloadQueue: new Map(),
    columns: { '0,0': { blocks: 'first' } },
    storageProvider: { regions: {}, regionFileName: () => 'r.0.0.mca', save },
    change (blocks) {
      this.columns['0,0'].blocks = blocks
      this.savingQueue.set('0,0', { chunkX: 0, chunkZ: 0 })
    },
    forceUnloadColumn (key) {
      this.unloadQueue.delete(key)
      delete this.columns[key]
    }
  }
  const storage = new Storage(Object.assign(new EventEmitter(), { players: [] }), os.tmpdir())
  storage.worlds = [world]
  return { storage, world }
}

test('a change that comes while its chunk is being saved is saved next', async () => {
  const saved = []
  const { storage, world } = storageOf(async (x, z, column) => {
    saved.push(column.blocks)
    if (saved.length === 1) world.change('second')
  })
  world.change('first')
  await storage.save()
  await storage.save()
  assert.deepStrictEqual(saved, ['first', 'second'])
  assert.strictEqual(world.savingQueue.size, 0)
})

test('a failed save is reported, and tried again with a region file opened anew', async () => {
  const saved = []
  let closed = 0
  let full = true
  const { storage, world } = storageOf(async (x, z, column) => {
    if (full) throw new Error('no space')
    saved.push(column.blocks)
  })
  world.storageProvider.regions['r.0.0.mca'] = { file: { close: async () => { closed++ } } }
  world.change('first')
  await assert.rejects(storage.save(), /no space/)
  full = false
  await storage.save()
  assert.deepStrictEqual(saved, ['first'])
  assert.strictEqual(closed, 1)
  assert.deepStrictEqual(world.storageProvider.regions, {})
})

test('a chunk that nobody sees any more leaves the memory after its save', async () => {
  const { storage, world } = storageOf(async () => {})
  world.change('first')
  world.unloadQueue.set('0,0', { chunkX: 0, chunkZ: 0 })
  await storage.save()
  assert.deepStrictEqual(world.columns, {})
})

test('a region whose file could not be opened ends the last save with what the disk said', async () => {
  const { storage, world } = storageOf(async () => {})
  const ini = Promise.reject(new Error('EACCES: permission denied'))
  ini.catch(() => {})
  world.storageProvider.regions['r.1.0.mca'] = { ini }
  await assert.rejects(storage.close(), { message: 'EACCES: permission denied' })
})

test('save-all flush goes through to the disk', async () => {
  const done = []
  const { storage, world } = storageOf(async () => { done.push('saved') })
  world.storageProvider.regions['r.0.0.mca'] = { file: { sync: async () => { done.push('synced') } } }
  world.change('first')
  await storage.flush()
  assert.deepStrictEqual(done, ['saved', 'synced'])
})

test('a player who was turned away overwrites nothing', async () => {
  const serv = new EventEmitter()
  const storage = new Storage(serv, '/nonexistent')
  const player = new EventEmitter()
  serv.emit('newPlayer', player)
  await player.save()
  assert.strictEqual(storage.playersRunning.size, 0)
})

test('reading a chunk that was never saved writes nothing', async () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'world-'))
  const { Anvil } = require('prismarine-provider-anvil')
  const provider = new (Anvil('1.21.4'))(folder)
  readWithoutWriting(provider)
  assert.strictEqual(await provider.load(100, 100), null)
  assert.deepStrictEqual(fs.readdirSync(folder), [])
  await (await provider.getRegion(100, 100)).file.close()
  assert.deepStrictEqual(fs.readdirSync(folder), ['r.3.3.mca'])
  fs.rmSync(folder, { recursive: true })
})
