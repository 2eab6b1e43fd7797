// Console commands that flying-squid lacks, or answers otherwise than Minecraft does.
'use strict'

const { Vec3 } = require('vec3')
const log = require('./log')

const POSITION = '(-?\\d+) (-?\\d+) (-?\\d+)'
const BLOCK = '(?:minecraft:)?([a-z0-9_]+)'

/** @param {{save: function, stop: function}} server what save-all and stop call */
function add (serv, settings, server) {
  const command = (base, usage, parse, action) =>
    serv.commands.add({ base, usage, info: usage, op: true, parse, action })
  const pattern = expression => text => text.match(new RegExp(`^${expression}$`)) ?? false

  command('list', '/list', undefined, () => {
    const names = serv.players.map(player => player.username)
    return `There are ${names.length} of a max of ${settings.maxPlayers} players online: ${names.join(', ')}`
  })
  command('seed', '/seed', undefined, () => `Seed: [${server.seed()}]`)
  command('save-all', '/save-all [flush]', undefined, async () => {
    await server.save()
    return 'Saved the game'
  })
  command('stop', '/stop', undefined, () => {
    // The answer has to leave before the connection ends.
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
}

/** Run one line as the console; returns the answer, as text. */
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
