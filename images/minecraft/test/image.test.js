'use strict'

const assert = require('node:assert')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const { beforeEach, test } = require('node:test')
const { setPlayers, setProperties } = require('../server/image')
const { offlineUuid, onlineUuid } = require('../server/players')
const { format, parse } = require('../server/properties')

let folder
const file = name => path.join(folder, name)
const onDisk = name => parse(fs.readFileSync(file('server.properties'), 'utf8'))[name]
const listed = name => JSON.parse(fs.readFileSync(file(name), 'utf8'))

beforeEach(() => { folder = fs.mkdtempSync(path.join(os.tmpdir(), 'image-')) })

test('a property file is read and written as Java does it', () => {
  const text = '# not=this\n! nor=this\n a = 1\nb:2\nc 3\\\n   4\nkey\\ sp=\\ lead\nmotd=one\\ntwo \\u00A7 \\\\\nempty\n'
  const found = parse(text)
  assert.deepStrictEqual(found,
    { a: '1', b: '2', c: '34', 'key sp': ' lead', motd: 'one\ntwo § \\', empty: '' })
  assert.deepStrictEqual(parse(format(found, 'comment')), found)
  assert.ok(format(found, 'comment').includes('\nkey\\ sp=\\ lead\nmotd=one\\ntwo § \\\\\n'))
})

test('a property without a variable stays as it is', () => {
  setProperties({ PVP: 'FALSE', MOTD: 'mine' }, folder)
  fs.appendFileSync(file('server.properties'), 'max-players=7\ntheirs=kept\n')
  setProperties({}, folder)
  const kept = ['pvp', 'motd', 'max-players', 'theirs'].map(onDisk)
  assert.deepStrictEqual(kept, ['false', 'mine', '7', 'kept'])
  setProperties({ PVP: 'TRUE', MOTD: '', MAX_PLAYERS: '20' }, folder)
  assert.deepStrictEqual(['pvp', 'motd', 'max-players'].map(onDisk), ['true', '', '20'])
})

test('the whitelist is on with a list or when asked, and off when asked, and else as it was', () => {
  const on = env => setProperties(env, folder)['white-list']
  assert.strictEqual(on({}), 'false')
  assert.strictEqual(on({ WHITELIST: 'Ada' }), 'true')
  assert.strictEqual(on({}), 'true')
  assert.strictEqual(on({ ENABLE_WHITELIST: 'FALSE', WHITELIST: '' }), 'false')
  assert.strictEqual(on({ ENABLE_WHITELIST: 'TRUE', WHITELIST: '' }), 'true')
})

test('text is read as the image reads it', () => {
  const read = (MOTD, more) => setProperties({ MOTD, SECRET: 'hush', ...more }, folder).motd
  assert.strictEqual(read('%SECRET% %env:SECRET% %NOBODY% 5%'), 'hush hush %NOBODY% 5%')
  assert.notStrictEqual(read('%date:YYYY%'), '%date:YYYY%')
  assert.strictEqual(read('\\u00a7a'), '§a')
  assert.strictEqual(read('%P%SECRET%P% %B%u0041', { P: '%', B: '\\\\' }), '%SECRET% \\u0041')
})

test('names are added to a list, or make it whole', () => {
  const names = (env, file = 'ops.json') => {
    setPlayers(env, folder, true)
    return listed(file).map(({ name }) => name)
  }
  assert.deepStrictEqual(names({}), [])
  assert.deepStrictEqual(names({ OPS: 'Ada,Eve' }), ['Ada', 'Eve'])
  assert.deepStrictEqual(names({ OPS: 'Ada' }), ['Ada', 'Eve'])
  assert.deepStrictEqual(names({ OPS: '' }), ['Ada', 'Eve'])
  assert.deepStrictEqual(names({ OPS: 'ada', EXISTING_OPS_FILE: 'SYNCHRONIZE' }), ['Ada'])
  assert.deepStrictEqual(names({}), ['Ada'])
  assert.deepStrictEqual(names({ OPS: 'Bob', EXISTING_OPS_FILE: 'SKIP' }), ['Ada'])
  assert.deepStrictEqual(names({ OPS: '', EXISTING_OPS_FILE: 'SYNCHRONIZE' }), [])
  assert.deepStrictEqual(names({ WHITELIST: 'Eve' }, 'whitelist.json'), ['Eve'])
})

test('an entry is as the game writes it, and one that is there keeps its rights', () => {
  setPlayers({ OPS: 'Ada,069a79f444e94726a5befca90e38aaf5' }, folder, true)
  const [ada, other] = listed('ops.json')
  assert.deepStrictEqual(ada, { uuid: onlineUuid('Ada'), name: 'Ada', level: 4, bypassesPlayerLimit: false })
  assert.deepStrictEqual([other.uuid, other.name], ['069a79f4-44e9-4726-a5be-fca90e38aaf5', ''])
  fs.writeFileSync(file('ops.json'), JSON.stringify([{ ...ada, level: 2 }]))
  const { operators } = setPlayers({ OPS: 'ada', EXISTING_OPS_FILE: 'SYNCHRONIZE' }, folder, true)
  assert.deepStrictEqual(listed('ops.json'), [{ ...ada, level: 2 }])
  assert.ok(operators.has({ username: 'ADA' }))
})

test('a player is added and removed by name', () => {
  const { whitelist } = setPlayers({}, folder, true)
  assert.deepStrictEqual([whitelist.add('Ada'), whitelist.add('ada'), whitelist.remove('Eve')], [true, false, false])
  assert.deepStrictEqual(listed('whitelist.json'), [{ uuid: onlineUuid('Ada'), name: 'Ada' }])
  assert.ok(whitelist.remove('ADA'))
  assert.deepStrictEqual(listed('whitelist.json'), [])
})

test('without online mode, players have other UUIDs than those that the image finds for their names', () => {
  const env = names => ({ WHITELIST: names, EXISTING_WHITELIST_FILE: 'SYNCHRONIZE' })
  const admits = (names, username) => setPlayers(env(names), folder, false).whitelist.has({ username })
  assert.deepStrictEqual([admits('Ada', 'Ada'), admits(offlineUuid('Ada'), 'Ada')], [false, true])
  assert.strictEqual(admits(offlineUuid('Ada'), 'ada'), false)
})

test('a name is looked up among those who have joined, and then at PlayerDB', () => {
  const uuid = '00000000-0000-0000-0009-01f8e5c3a2b1'
  const env = { EXISTING_OPS_FILE: 'SYNCHRONIZE', PLAYERDB_NAMES: 'Ada' }
  const take = names => setPlayers({ ...env, OPS: names }, folder, true)
  assert.throws(() => take('.Steve'), /Could not resolve user from Playerdb: \.Steve/)
  fs.writeFileSync(file('usercache.json'), JSON.stringify([{ name: '.Steve', uuid, expiresOn: '' }]))
  take('.steve,ada')
  assert.deepStrictEqual(listed('ops.json').map(entry => entry.uuid), [uuid, onlineUuid('Ada')])
})

test('a UUID is the one that Minecraft makes of a name offline', () => {
  assert.strictEqual(offlineUuid('Notch'), 'b50ad385-829d-3141-a216-7e7d7539ba7f')
})
