// Writes the environment into the game's files, as itzg/minecraft-server's scripts do before the game starts.
// https://docker-minecraft-server.readthedocs.io/en/latest/configuration/server-properties/
'use strict'

const fs = require('fs')
const path = require('path')
const { format, parse } = require('./properties')
const { Players, onlineUuid, same } = require('./players')

// The known properties, each with its variable and with the game's default.
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

/** Replace \u0041 with a letter, %NAME% with a variable and %date:…% with the time, as the image does. */
function read (text, env) {
  return text
    .replace(/\\u([0-9a-fA-F]{4})/g, (_, code) => String.fromCharCode(parseInt(code, 16)))
    .replace(/%(?:(\w+):)?(.+?)%/g, (all, kind = 'env', name) => {
      if (kind === 'date' || kind === 'time') return new Date().toISOString()
      // The image inserts the text with Java's appendReplacement, which drops a backslash and keeps the next character.
      return kind === 'env' && env[name] !== undefined ? env[name].replace(/\\([^])/g, '$1') : all
    })
    .replace(/^(true|false)$/i, word => word.toLowerCase())
}

/**
 * Write the environment into server.properties. A property without a variable keeps its value.
 * @returns {Object<string, string>} the properties that the game starts with
 */
function setProperties (env, folder) {
  const file = path.join(folder, 'server.properties')
  const first = !fs.existsSync(file)
  const before = first ? {} : parse(fs.readFileSync(file, 'utf8'))
  const listed = (env.WHITELIST ?? '') !== '' || yes(env.ENABLE_WHITELIST)
  const variables = {
    ...(first && { MOTD: 'A Vanilla Minecraft Server powered by Docker' }),
    ...env,
    ...(listed && { WHITELIST_PROP: 'true', ENFORCE_WHITELIST: 'true' }),
    ...(!listed && (first || no(env.ENABLE_WHITELIST)) && { WHITELIST_PROP: 'false' })
  }
  const after = Object.fromEntries(Object.entries(PROPERTIES).map(([name, [, missing]]) => [name, missing]))
  Object.assign(after, before)
  for (const [name, [variable]] of Object.entries(PROPERTIES)) {
    if (variables[variable] !== undefined) after[name] = read(variables[variable], variables)
  }
  if (Object.keys(after).some(name => after[name] !== before[name])) write(folder, after)
  return after
}

function write (folder, properties) {
  const file = path.join(folder, 'server.properties')
  fs.writeFileSync(`${file}.new`, format(properties, 'Minecraft server properties'))
  fs.renameSync(`${file}.new`, file)
}

/** A player's name has no UUID; the image ends then. */
class NotFound extends Error {}

/**
 * Find the UUID of a player's name: in usercache.json, which has those who have joined, and then at PlayerDB. In its
 * place are the names in PLAYERDB_NAMES, or, without that, all names that an account can have.
 */
function lookUp (name, env, folder) {
  const file = path.join(folder, 'usercache.json')
  const joined = fs.existsSync(file) ? JSON.parse(fs.readFileSync(file, 'utf8')) : []
  const found = joined.find(player => same(player.name, name))
  if (found) return found.uuid
  const known = env.PLAYERDB_NAMES === undefined
    ? /^\w{1,16}$/.test(name)
    : env.PLAYERDB_NAMES.split(',').some(other => same(other, name))
  if (!known) throw new NotFound(`Could not resolve user from Playerdb: ${name}`)
  return onlineUuid(name)
}

/**
 * Write the environment into the lists of operators and of whitelisted players; returns both lists.
 * @param {boolean} online whether the server verifies accounts. The image looks names up in any case
 * @throws {NotFound} there is no player of this name
 */
function setPlayers (env, folder, online) {
  const list = (file, variable, rights) => {
    const players = new Players(path.join(folder, file), online, rights)
    const names = (env[variable] ?? '').split(/[,\n\t]/).map(name => name.trim()).filter(Boolean)
    // Without a variable, the game creates an empty file if there is none.
    players.take(names, env[variable] === undefined ? 'MERGE' : env[`EXISTING_${variable}_FILE`],
      name => lookUp(name, env, folder))
    return players
  }
  return {
    operators: list('ops.json', 'OPS', { level: 4, bypassesPlayerLimit: false }),
    whitelist: list('whitelist.json', 'WHITELIST')
  }
}

module.exports = { NotFound, PROPERTIES, setPlayers, setProperties, write }
