'use strict'

const assert = require('node:assert')
const { test } = require('node:test')
const { read, SettingsError } = require('../server/settings')

const base = { EULA: 'TRUE' }

test('without an accepted EULA nothing starts, and the message names the variable', () => {
  for (const env of [{}, { EULA: 'false' }, { EULA: '' }]) {
    assert.throws(() => read(env), error => error instanceof SettingsError && /set EULA to TRUE/.test(error.message))
  }
})

test('an empty environment gives what itzg/minecraft-server gives', () => {
  const settings = read(base)
  assert.strictEqual(typeof settings.seed, 'number')
  assert.deepStrictEqual({ ...settings, seed: 0 }, {
    version: '1.21.4',
    port: 25565,
    motd: 'A Minecraft server',
    maxPlayers: 20,
    viewDistance: 10,
    gameMode: 0,
    difficulty: 1,
    level: 'world',
    seed: 0,
    generator: 'diamond_square',
    whitelist: null,
    operators: new Set(),
    announceSeconds: 0,
    rcon: null
  })
})

test('values are read in the words of itzg/minecraft-server', () => {
  const settings = read({
    ...base,
    MODE: 'Creative',
    DIFFICULTY: '3',
    LEVEL_TYPE: 'minecraft:flat',
    SEED: 'hello',
    WHITELIST: 'Alice, bob\ncarl',
    OPS: 'Alice',
    VERSION: 'latest',
    TYPE: 'PAPER'
  })
  assert.strictEqual(settings.gameMode, 1)
  assert.strictEqual(settings.difficulty, 3)
  assert.strictEqual(settings.generator, 'superflat')
  // Java's "hello".hashCode().
  assert.strictEqual(settings.seed, 99162322)
  assert.deepStrictEqual(settings.whitelist, new Set(['alice', 'bob', 'carl']))
  assert.deepStrictEqual(settings.operators, new Set(['alice']))
})

test('a wrong value is named', () => {
  const wrong = {
    DIFFICULTY: 'horrible',
    MODE: '4',
    MAX_PLAYERS: '-1',
    SERVER_PORT: '70000',
    VERSION: '1.7.10',
    LEVEL: '../etc',
    LEVEL_TYPE: 'round',
    RCON_PASSWORD_FILE: '/nonexistent'
  }
  for (const [name, value] of Object.entries(wrong)) {
    assert.throws(() => read({ ...base, [name]: value }),
      error => error instanceof SettingsError && error.message.startsWith(name), name)
  }
})
