// Console commands that flying-squid lacks, or answers differently from Minecraft.
'use strict'

const { Vec3 } = require('vec3')
const image = require('./image')
const log = require('./log')

const POSITION = '(-?\\d+) (-?\\d+) (-?\\d+)'
const BLOCK = '(?:minecraft:)?([a-z0-9_]+)'

const PLAYER = '([.A-Za-z0-9_-]{1,36})'

/** @param {{storage: Storage, seed: function, stop: function}} server what the commands use */
function add (serv, settings, server) {
  const command = (base, usage, parse, action) =>
    serv.commands.add({ base, usage, info: usage, op: true, parse, action })
  const pattern = expression => text => text.match(new RegExp(`^${expression}$`)) ?? false

  command('list', '/list', undefined, () => {
    const names = serv.players.map(player => player.username)
    return `There are ${names.length} of a max of ${settings.maxPlayers} players online: ${names.join(', ')}`
  })
  command('seed', '/seed', undefined, () => `Seed: [${server.seed()}]`)
  command('save-all', '/save-all [flush]', pattern('(flush)?'), async ([, flush]) => {
    await (flush ? server.storage.flush() : server.storage.save())
    return 'Saved the game'
  })
  for (const [word, enabled, answer] of [['save-off', false, 'disabled'], ['save-on', true, 'enabled']]) {
    command(word, `/${word}`, undefined, () => {
      if (server.storage.saving === enabled) return `Saving is already turned ${enabled ? 'on' : 'off'}`
      server.storage.saving = enabled
      return `Automatic saving is now ${answer}`
    })
  }
  command('stop', '/stop', undefined, () => {
    // Stop later, so that the answer is sent before the connection ends.
    setTimeout(() => server.stop('/stop'), 100)
    return 'Stopping the server'
  })
  command('setblock', '/setblock <x> <y> <z> <block>', pattern(`${POSITION} ${BLOCK}`), async ([, x, y, z, name]) => {
    const block = serv.registry.blocksByName[name]
    if (!block) return `Unknown block type 'minecraft:${name}'`
    const position = new Vec3(+x, +y, +z)
    if (await serv.overworld.getBlockStateId(position) === block.defaultState) return 'Could not set the block'
    await serv.setBlock(serv.overworld, position, block.defaultState)
    return `Changed the block at ${x}, ${y}, ${z}`
  })
  command('execute', '/execute if block <x> <y> <z> <block>', pattern(`if block ${POSITION} ${BLOCK}`),
    async ([, x, y, z, name]) => {
      const block = await serv.overworld.getBlock(new Vec3(+x, +y, +z))
      return block.name === name ? 'Test passed' : 'Test failed'
    })
  addPlayers(serv, settings, command, pattern)
}

/** Add the commands for operators and the whitelist. */
function addPlayers (serv, settings, command, pattern) {
  const { operators, whitelist, properties } = settings
  const players = () => serv.players.map(player => ({ player, username: player.username, uuid: player.uuid }))
  command('op', '/op <player>', pattern(PLAYER), ([, name]) => {
    if (!operators.add(name)) return 'Nothing changed. The player already is an operator'
    for (const client of players()) client.player.op = operators.has(client)
    return `Made ${name} a server operator`
  })
  command('deop', '/deop <player>', pattern(PLAYER), ([, name]) => {
    if (!operators.remove(name)) return 'Nothing changed. The player is not an operator'
    for (const client of players()) client.player.op = operators.has(client)
    return `Made ${name} no longer a server operator`
  })
  function enforce () {
    if (properties['white-list'] !== 'true' || properties['enforce-whitelist'] !== 'true') return
    for (const client of players()) {
      if (operators.has(client) || whitelist.has(client)) continue
      client.player.kick('You are not white-listed on this server!')
    }
  }
  const actions = {
    on: () => turn('on', 'true'),
    off: () => turn('off', 'false'),
    list: () => whitelist.names().length === 0
      ? 'There are no whitelisted players'
      : `There are ${whitelist.names().length} whitelisted player(s): ${whitelist.names().join(', ')}`,
    reload: () => { whitelist.load(); return 'Reloaded the whitelist' },
    add: name => whitelist.add(name) ? `Added ${name} to the whitelist` : 'Player is already whitelisted',
    remove: name => whitelist.remove(name) ? `Removed ${name} from the whitelist` : 'Player is not whitelisted'
  }
  function turn (word, value) {
    if (properties['white-list'] === value) return `Whitelist is already turned ${word}`
    properties['white-list'] = value
    image.write(process.cwd(), properties)
    return `Whitelist is now turned ${word}`
  }
  command('whitelist', '/whitelist on|off|list|reload|add <player>|remove <player>',
    pattern(`(?:(on|off|list|reload)|(add|remove) ${PLAYER})`), ([, word, verb, name]) => {
      const answer = actions[word ?? verb](name)
      enforce()
      return answer
    })
}

/** Run one line as a console command; returns the answer as text. */
async function run (serv, line) {
  const command = line.trim().replace(/^\//, '')
  if (command === '') return ''
  try {
    return (await log.answerOf(() => serv.commands.use(command))).join('\n')
  } catch (error) {
    if (error.message === 'Command not found') return `Unknown or incomplete command: ${command}`
    if (!error.userError && !error.code) log.error(error.stack)
    return error.message
  }
}

module.exports = { add, run }
