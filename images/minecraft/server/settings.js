// The server's settings: the environment of itzg/minecraft-server, which overrides the files in the data folder.
'use strict'

const crypto = require('crypto')
const fs = require('fs')
const { NotFound, PROPERTIES, setPlayers, setProperties } = require('./image')

const VERSION = '1.21.4'
const MODES = ['survival', 'creative', 'adventure', 'spectator']
const DIFFICULTIES = ['peaceful', 'easy', 'normal', 'hard']
const GENERATORS = { default: 'diamond_square', normal: 'diamond_square', flat: 'superflat' }

/** A setting with which the server cannot start; the message is for its owner. */
class SettingsError extends Error {}

/**
 * @param {Object<string, string>} env the process's environment
 * @param {string} folder the folder of server.properties, ops.json and whitelist.json, which this updates
 * @returns the settings, named as in flying-squid if it has them
 * @throws {SettingsError} a value is missing or wrong
 */
function read (env, folder) {
  if ((env.EULA ?? '').toLowerCase() !== 'true') {
    throw new SettingsError('Minecraft\'s EULA must be accepted before the server starts: set EULA to TRUE ' +
      '(https://aka.ms/MinecraftEULA)')
  }
  const version = (env.VERSION || 'LATEST').toUpperCase()
  if (version !== 'LATEST' && version !== VERSION) {
    throw new SettingsError(`VERSION ${env.VERSION} is not served by this image: it has ${VERSION} (or LATEST) alone`)
  }
  const properties = setProperties({ ...env, ...console_(env) }, folder)
  const value = name => properties[name] || PROPERTIES[name][1]
  // A message names the variable if it is set, or else the property in the file.
  const called = name => env[PROPERTIES[name][0]] === undefined ? name : PROPERTIES[name][0]
  const number = (name, least, most) => whole(value(name), called(name), least, most)
  const level = value('level-name')
  if (!/^[A-Za-z0-9_][A-Za-z0-9_. -]*$/.test(level)) {
    throw new SettingsError(`${called('level-name')} must be a plain folder name, and is: ${level}`)
  }
  const type = value('level-type').toLowerCase().replace(/^minecraft:/, '')
  if (!(type in GENERATORS)) {
    throw new SettingsError(`${called('level-type')} must be default or flat, and is: ${type}`)
  }
  return {
    version: VERSION,
    host: properties['server-ip'] || undefined,
    port: number('server-port', 1, 65535),
    status: properties['enable-status'] !== 'false',
    motd: properties.motd,
    maxPlayers: number('max-players', 1, 2147483647),
    viewDistance: number('view-distance', 2, 32),
    gameMode: oneOf(value('gamemode'), called('gamemode'), MODES),
    difficulty: oneOf(value('difficulty'), called('difficulty'), DIFFICULTIES),
    level,
    seed: seed(properties['level-seed']),
    generator: GENERATORS[type],
    properties,
    ...players(env, folder, properties['online-mode'] !== 'false'),
    announceSeconds: whole(env.STOP_SERVER_ANNOUNCE_DELAY || '0', 'STOP_SERVER_ANNOUNCE_DELAY', 0, 86400),
    // 0: as long as it takes.
    stopSeconds: whole(env.STOP_DURATION || '60', 'STOP_DURATION', 0, 86400),
    // Without a password nobody could log in, and with a default one everybody could.
    rcon: properties['enable-rcon'] === 'true' && properties['rcon.password'] !== ''
      ? { port: number('rcon.port', 1, 65535), password: properties['rcon.password'] }
      : null
  }
}

function players (env, folder, online) {
  try {
    return setPlayers(env, folder, online)
  } catch (error) {
    throw error instanceof NotFound ? new SettingsError(error.message) : error
  }
}

function whole (text, name, least, most) {
  const value = Number(text)
  if (!/^\d+$/.test(text) || value < least || value > most) {
    throw new SettingsError(`${name} must be a whole number from ${least} to ${most}, and is: ${text}`)
  }
  return value
}

function oneOf (text, name, words) {
  const index = /^\d$/.test(text) ? Number(text) : words.indexOf(text.toLowerCase())
  if (!(index in words)) throw new SettingsError(`${name} must be one of ${words.join(', ')}, and is: ${text}`)
  return index
}

// As in Minecraft, a number is the seed itself, and any other text is hashed. flying-squid's level.dat has 32 bits, so
// a larger number is hashed too.
function seed (text) {
  if (text.trim() === '') return crypto.randomInt(2 ** 31)
  if (/^-?\d+$/.test(text) && Math.abs(Number(text)) < 2 ** 31) return Number(text)
  let hash = 0
  for (let i = 0; i < text.length; i++) hash = (Math.imul(31, hash) + text.charCodeAt(i)) | 0
  return hash
}

// By default, the image turns RCON on. It reads the password from a file.
function console_ (env) {
  const set = { ENABLE_RCON: env.ENABLE_RCON || 'true', RCON_PORT: env.RCON_PORT || '25575' }
  const file = env.RCON_PASSWORD_FILE
  if (!file || set.ENABLE_RCON.toLowerCase() !== 'true') return set
  let password
  try {
    password = fs.readFileSync(file, 'utf8').trim()
  } catch (error) {
    throw new SettingsError(`RCON_PASSWORD_FILE cannot be read: ${error.message}`)
  }
  if (password === '') throw new SettingsError(`RCON_PASSWORD_FILE ${file} is empty`)
  return { ...set, RCON_PASSWORD: password }
}

module.exports = { read, SettingsError }
