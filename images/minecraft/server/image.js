// What itzg/minecraft-server's scripts do before the game starts: the environment into the files that the game reads.
// https://docker-minecraft-server.readthedocs.io/en/latest/configuration/server-properties/
'use strict'

const fs = require('fs')
const path = require('path')
const { format, parse } = require('./properties')
const { Players } = require('./players')

// The properties that are known here: the variable of each, and what the game takes for one that is missing.
const PROPERTIES = {
  'allow-flight': ['ALLOW_FLIGHT', 'false'],
  'allow-nether': ['ALLOW_NETHER', 'true'],
  difficulty: ['DIFFICULTY', 'easy'],
  'enable-command-block': ['ENABLE_COMMAND_BLOCK', 'false'],
  'enable-rcon': ['ENABLE_RCON', 'false'],
  'enable-status': ['ENABLE_STATUS', 'true'],
  'enforce-whitelist': ['ENFORCE_WHITELIST', 'false'],
  gamemode: ['MODE', 'survival'],
  hardcore: ['HARDCORE', 'false'],
  'level-name': ['LEVEL', 'world'],
  'level-seed': ['SEED', ''],
  'level-type': ['LEVEL_TYPE', 'minecraft:normal'],
  'max-players': ['MAX_PLAYERS', '20'],
  motd: ['MOTD', 'A Minecraft Server'],
  'online-mode': ['ONLINE_MODE', 'true'],
  pvp: ['PVP', 'true'],
  'rcon.password': ['RCON_PASSWORD', ''],
  'rcon.port': ['RCON_PORT', '25575'],
  'server-ip': ['SERVER_IP', ''],
  'server-port': ['SERVER_PORT', '25565'],
  'simulation-distance': ['SIMULATION_DISTANCE', '10'],
  'spawn-protection': ['SPAWN_PROTECTION', '16'],
  'view-distance': ['VIEW_DISTANCE', '10'],
  'white-list': ['WHITELIST_PROP', 'false']
}

const yes = text => /^(true|yes|on|1)$/i.test(text ?? '')
const no = text => /^(false|no|off|0)$/i.test(text ?? '')

/** A variable's text as the image reads it: \u0041 is a letter, %NAME% a variable, %date:…% the time. */
function read (text, env) {
  return text
    .replace(/\\u([0-9a-fA-F]{4})/g, (_, code) => String.fromCharCode(parseInt(code, 16)))
    .replace(/%(?:(\w+):)?(.+?)%/g, (all, kind = 'env', name) => {
      if (kind === 'date' || kind === 'time') return new Date().toISOString()
      // What is put in is read by Java's appendReplacement, to which a backslash stands for the sign after it.
      return kind === 'env' && env[name] !== undefined ? env[name].replace(/\\([^])/g, '$1') : all
    })
    .replace(/^(true|false)$/i, word => word.toLowerCase())
}

/**
 * Bring server.properties up to the environment. A property without a variable stays as it is.
 * @returns {Object<string, string>} the properties that the game starts with
 */
function setProperties (env, folder) {
  const file = path.join(folder, 'server.properties')
  const first = !fs.existsSync(file)
  const before = first ? {} : parse(fs.readFileSync(file, 'utf8'))
  const listed = (env.WHITELIST ?? '') !== '' || yes(env.ENABLE_WHITELIST)
  const given = {
    ...(first && { MOTD: 'A Vanilla Minecraft Server powered by Docker' }),
    ...env,
    ...(listed && { WHITELIST_PROP: 'true', ENFORCE_WHITELIST: 'true' }),
    ...(!listed && (first || no(env.ENABLE_WHITELIST)) && { WHITELIST_PROP: 'false' })
  }
  const after = Object.fromEntries(Object.entries(PROPERTIES).map(([name, [, missing]]) => [name, missing]))
  Object.assign(after, before)
  for (const [name, [variable]] of Object.entries(PROPERTIES)) {
    if (given[variable] !== undefined) after[name] = read(given[variable], given)
  }
  if (Object.keys(after).some(name => after[name] !== before[name])) write(folder, after)
  return after
}

function write (folder, properties) {
  const file = path.join(folder, 'server.properties')
  fs.writeFileSync(`${file}.new`, format(properties, 'Minecraft server properties'))
  fs.renameSync(`${file}.new`, file)
}

/** The operators and the whitelist, brought up to the environment, as the game has them. */
function setPlayers (env, folder) {
  const list = (file, variable, rights) => {
    const players = new Players(path.join(folder, file), rights)
    const names = (env[variable] ?? '').split(/[,\n\t]/).map(name => name.trim()).filter(Boolean)
    // Without a variable the game makes an empty file where there is none.
    players.take(names, env[variable] === undefined ? 'MERGE' : env[`EXISTING_${variable}_FILE`])
    return players
  }
  return {
    operators: list('ops.json', 'OPS', { level: 4, bypassesPlayerLimit: false }),
    whitelist: list('whitelist.json', 'WHITELIST')
  }
}

module.exports = { PROPERTIES, setPlayers, setProperties, write }
