'use strict'

const assert = require('node:assert')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const { test } = require('node:test')
const settings = require('../server/settings')
const { SettingsError } = settings

const base = { EULA: 'TRUE' }
const folder = () => fs.mkdtempSync(path.join(os.tmpdir(), 'settings-'))
const read = (env, where = folder()) => settings.read(env, where)

test('without an accepted EULA nothing starts, and the message names the variable', () => {
  for (const env of [{}, { EULA: 'false' }, { EULA: '' }]) {
    assert.throws(() => read(env), error => error instanceof SettingsError && /set EULA to TRUE/.test(error.message))
  }
})

test('an empty environment gives what itzg/minecraft-server gives', () => {
  const { properties, operators, whitelist, ...found } = read(base)
  assert.strictEqual(typeof found.seed, 'number')
  assert.deepStrictEqual({ ...found, seed: 0 }, {
    version: '1.21.4',
    host: undefined,
    port: 25565,
    status: true,
    motd: 'A Vanilla Minecraft Server powered by Docker',
    maxPlayers: 20,
    viewDistance: 10,
    gameMode: 0,
    difficulty: 1,
    level: 'world',
    seed: 0,
    generator: 'diamond_square',
    announceSeconds: 0,
    stopSeconds: 60,
    rcon: null
  })
  assert.deepStrictEqual([properties['white-list'], operators.names(), whitelist.names()], ['false', [], []])
})

test('values are read in the words of itzg/minecraft-server', () => {
  const found = read({
    ...base,
    MODE: 'Creative',
    DIFFICULTY: '3',
    LEVEL_TYPE: 'minecraft:flat',
    SEED: 'hello',
    WHITELIST: 'Alice, bob\ncarl',
    OPS: 'Alice',
    VERSION: 'latest',
    TYPE: 'PAPER',
    SERVER_IP: '127.0.0.1',
    ENABLE_STATUS: 'FALSE'
  })
  assert.strictEqual(found.gameMode, 1)
  assert.strictEqual(found.difficulty, 3)
  assert.strictEqual(found.generator, 'superflat')
  // Java's "hello".hashCode().
  assert.strictEqual(found.seed, 99162322)
  assert.deepStrictEqual(found.whitelist.names(), ['Alice', 'bob', 'carl'])
  assert.ok(found.whitelist.has({ username: 'alice' }))
  assert.strictEqual(found.properties['white-list'], 'true')
  assert.deepStrictEqual(found.operators.names(), ['Alice'])
  assert.deepStrictEqual([found.host, found.status], ['127.0.0.1', false])
})

test('a wrong value is named, by its variable or by its line', () => {
  const wrong = {
    DIFFICULTY: 'horrible',
    MODE: '4',
    MAX_PLAYERS: '-1',
    SERVER_PORT: '70000',
    VERSION: '1.7.10',
    LEVEL: '../etc',
    LEVEL_TYPE: 'round',
    RCON_PASSWORD_FILE: '/nonexistent',
    STOP_DURATION: '60s'
  }
  for (const [name, value] of Object.entries(wrong)) {
    assert.throws(() => read({ ...base, [name]: value }),
      error => error instanceof SettingsError && error.message.startsWith(name), name)
  }
  const where = folder()
  fs.writeFileSync(path.join(where, 'server.properties'), 'view-distance=far\n')
  assert.throws(() => read(base, where), error => error.message.startsWith('view-distance must be'))
})

test('a player whom nobody can look up keeps the server from its start, even one who is listed already', () => {
  const where = folder()
  fs.writeFileSync(path.join(where, 'ops.json'), JSON.stringify([{ uuid: 'x', name: 'Ada', level: 4 }]))
  const env = { ...base, OPS: 'Ada', EXISTING_OPS_FILE: 'SYNCHRONIZE', PLAYERDB_NAMES: '' }
  assert.throws(() => read(env, where),
    error => error instanceof SettingsError && error.message === 'Could not resolve user from Playerdb: Ada')
})
