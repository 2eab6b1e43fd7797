// Worlds and players on disk. flying-squid and prismarine-world save too, but lose changes: a chunk that changes while
// it is saved leaves the queue, a failed save stops all later ones, the nether is in memory only, and a player who is
// refused overwrites the data of the real one.
'use strict'

const fs = require('fs')
const path = require('path')
const { level } = require('prismarine-provider-anvil')
const playerDat = require('flying-squid/src/lib/playerDat')
const log = require('./log')

const INTERVAL_MS = 1000
// A region file that is written only in part, because the disk is full, is broken.
const SPARE_BYTES = 4 * 1024 * 1024

/**
 * Create the world's folder, with a level.dat that keeps its seed. It is written atomically: if flying-squid found half
 * a level.dat, it would use a new seed.
 */
async function prepare (folder, settings) {
  fs.mkdirSync(path.join(folder, 'region'), { recursive: true })
  fs.mkdirSync(path.join(folder, 'playerdata'), { recursive: true })
  const file = path.join(folder, 'level.dat')
  if (fs.existsSync(file)) return
  await level.writeLevel(`${file}.new`, {
    RandomSeed: [settings.seed, 0],
    Version: { Name: settings.version },
    generatorName: settings.generator === 'superflat' ? 'flat' : 'default'
  })
  fs.renameSync(`${file}.new`, file)
}

class Storage {
  constructor (serv, folder) {
    this.serv = serv
    this.folder = folder
    this.failure = ''
    // Whether changes are saved automatically (save-off and save-on).
    this.saving = true
    this.running = Promise.resolve()
    this.playersRunning = new Set()
    serv.on('newPlayer', player => this._keepPlayer(player))
  }

  /** Replace the worlds' own saving. Call it once they exist. */
  start () {
    const Anvil = require('prismarine-provider-anvil').Anvil(this.serv.registry)
    const nether = path.join(this.folder, 'DIM-1', 'region')
    fs.mkdirSync(nether, { recursive: true })
    this.serv.netherworld.storageProvider = new Anvil(nether)
    this.worlds = [this.serv.overworld, this.serv.netherworld]
    for (const world of this.worlds) {
      world.stopSaving()
      readWithoutWriting(world.storageProvider)
    }
    this.timer = setInterval(() => this.saving && this.save().catch(() => {}), INTERVAL_MS)
  }

  /**
   * Write all changes.
   * @throws {Error} the disk's error; the changes stay queued, and the next call tries them again
   */
  save () {
    const saved = this.running.then(() => this._saveWorlds())
    this.running = saved.catch(() => {})
    return saved
  }

  /** Write worlds and players, and sync them to the disk. */
  async flush () {
    await Promise.all(this.serv.players.map(player => player.save()))
    await Promise.all(this.playersRunning)
    await this.save()
    for (const world of this.worlds) {
      for (const region of Object.values(world.storageProvider.regions)) {
        // If the region's file could not be opened, there is no file to sync, and this throws the reason.
        await region.ini
        await region.file.sync()
      }
    }
  }

  /** Save for the last time. */
  async close () {
    clearInterval(this.timer)
    await this.flush()
  }

  async _saveWorlds () {
    try {
      if (this.worlds.some(world => world.savingQueue.size > 0)) await this._requireSpace()
      for (const world of this.worlds) await saveWorld(world)
      if (this.failure !== '') log.info('The world can be saved again')
      this.failure = ''
    } catch (error) {
      if (this.failure !== error.message) log.error(`The world could not be saved: ${error.message}`)
      this.failure = error.message
      throw error
    }
  }

  async _requireSpace () {
    const { bavail, bsize } = await fs.promises.statfs(this.folder)
    if (bavail * bsize < SPARE_BYTES) throw Object.assign(new Error('the disk is full'), { code: 'ENOSPC' })
  }

  _keepPlayer (player) {
    let complete = false
    player.on('spawned', () => { complete = true })
    player.save = () => {
      // Before the spawn, the player's position and inventory are not loaded.
      if (!complete) return Promise.resolve()
      const saved = this._savePlayer(player).catch(error => {
        log.error(`${player.username} could not be saved: ${error.message}`)
      })
      this.playersRunning.add(saved)
      return saved.finally(() => this.playersRunning.delete(saved))
    }
  }

  async _savePlayer (player) {
    const { serv, folder } = this
    await this._requireSpace()
    const unfinished = await fs.promises.mkdtemp(path.join(folder, 'playerdata', '.new-'))
    try {
      await playerDat.save(player, unfinished, serv.supportFeature('attributeSnakeCase'),
        serv.supportFeature('theFlattening'))
      const file = `${player.uuid}.dat`
      await fs.promises.rename(path.join(unfinished, 'playerdata', file), path.join(folder, 'playerdata', file))
    } finally {
      await fs.promises.rm(unfinished, { recursive: true, force: true })
    }
  }
}

// Who reads a chunk that is not there would create its region's file. While the world is held still (save-off, and then
// save-all flush), nothing in its folder may change, wherever players go.
function readWithoutWriting (provider) {
  const { loadRaw } = provider
  provider.loadRaw = async (chunkX, chunkZ) => {
    const name = provider.regionFileName(chunkX, chunkZ)
    if (!(name in provider.regions) && !fs.existsSync(name)) return null
    return loadRaw.call(provider, chunkX, chunkZ)
  }
}

// A chunk leaves the queue only if it was not queued again meanwhile: each time, it is queued as a new object.
async function saveWorld (world) {
  const batch = [...world.savingQueue]
  await Promise.all(batch.map(async ([key, entry]) => {
    const column = world.columns[key]
    if (column) await saveColumn(world.storageProvider, entry, column)
    if (world.savingQueue.get(key) === entry) world.savingQueue.delete(key)
  }))
  for (const [key, { chunkX, chunkZ }] of [...world.unloadQueue]) {
    if (!world.savingQueue.has(key)) world.forceUnloadColumn(key, chunkX, chunkZ)
  }
}

// After one failure, a region refuses all later writes. A new object for its file does not.
async function saveColumn (provider, { chunkX, chunkZ }, column) {
  try {
    await provider.save(chunkX, chunkZ, column)
  } catch (error) {
    const name = provider.regionFileName(chunkX, chunkZ)
    const region = provider.regions[name]
    delete provider.regions[name]
    await region?.file?.close().catch(() => {})
    throw error
  }
}

module.exports = { Storage, prepare, readWithoutWriting }
