// The environment of itzg/minecraft-server, read into what this server starts with.
'use strict'

const crypto = require('crypto')
const fs = require('fs')

const VERSION = '1.21.4'
const MODES = ['survival', 'creative', 'adventure', 'spectator']
const DIFFICULTIES = ['peaceful', 'easy', 'normal', 'hard']
const GENERATORS = { default: 'diamond_square', normal: 'diamond_square', flat: 'superflat' }

/** A setting that the server can't start with; the message is for its owner. */
class SettingsError extends Error {}

/**
 * @param {Object<string, string>} env the process's environment
 * @returns what the server starts with; names as in flying-squid where it has them
 * @throws {SettingsError} a value is missing or wrong
 */
function read (env) {
  const get = (name, fallback) => (env[name] ?? '') === '' ? fallback : env[name]
  if (get('EULA', '').toLowerCase() !== 'true') {
    throw new SettingsError('Minecraft\'s EULA must be accepted before the server starts: set EULA to TRUE ' +
      '(https://aka.ms/MinecraftEULA)')
  }
  const version = get('VERSION', 'LATEST').toUpperCase()
  if (version !== 'LATEST' && version !== VERSION) {
    throw new SettingsError(`VERSION ${get('VERSION')} is not served by this image: it has ${VERSION} (or LATEST) alone`)
  }
  const level = get('LEVEL', 'world')
  if (!/^[A-Za-z0-9_][A-Za-z0-9_. -]*$/.test(level)) {
    throw new SettingsError(`LEVEL must be a plain folder name, and is: ${level}`)
  }
  const type = get('LEVEL_TYPE', 'default').toLowerCase().replace(/^minecraft:/, '')
  if (!(type in GENERATORS)) {
    throw new SettingsError(`LEVEL_TYPE must be default or flat, and is: ${type}`)
  }
  return {
    version: VERSION,
    port: whole(get('SERVER_PORT', '25565'), 'SERVER_PORT', 1, 65535),
    motd: get('MOTD', 'A Minecraft server'),
    maxPlayers: whole(get('MAX_PLAYERS', '20'), 'MAX_PLAYERS', 1, 2147483647),
    viewDistance: whole(get('VIEW_DISTANCE', '10'), 'VIEW_DISTANCE', 2, 32),
    gameMode: oneOf(get('MODE', 'survival'), 'MODE', MODES),
    difficulty: oneOf(get('DIFFICULTY', 'easy'), 'DIFFICULTY', DIFFICULTIES),
    level,
    seed: seed(get('SEED')),
    generator: GENERATORS[type],
    whitelist: whitelist(get),
    operators: names(get('OPS', '')),
    announceSeconds: whole(get('STOP_SERVER_ANNOUNCE_DELAY', '0'), 'STOP_SERVER_ANNOUNCE_DELAY', 0, 3600),
    rcon: rcon(get)
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

// As Minecraft does it: a number is the seed itself, any other text is hashed. A level.dat of
// flying-squid holds 32 bits, so a larger number is hashed too.
function seed (text) {
  if (text === undefined) return crypto.randomInt(2 ** 31)
  if (/^-?\d+$/.test(text) && Math.abs(Number(text)) < 2 ** 31) return Number(text)
  let hash = 0
  for (let i = 0; i < text.length; i++) hash = (Math.imul(31, hash) + text.charCodeAt(i)) | 0
  return hash
}

function names (text) {
  return new Set(text.split(/[\s,]+/).filter(Boolean).map(name => name.toLowerCase()))
}

// A list alone switches the whitelist on, as in itzg's.
function whitelist (get) {
  const listed = names(get('WHITELIST', ''))
  const asked = get('ENABLE_WHITELIST', get('ENFORCE_WHITELIST', '')).toLowerCase()
  return asked === 'true' || (asked === '' && listed.size > 0) ? listed : null
}

function rcon (get) {
  if (get('ENABLE_RCON', 'true').toLowerCase() !== 'true') return null
  const file = get('RCON_PASSWORD_FILE')
  let password = get('RCON_PASSWORD', '')
  if (file !== undefined) {
    try {
      password = fs.readFileSync(file, 'utf8').trim()
    } catch (error) {
      throw new SettingsError(`RCON_PASSWORD_FILE cannot be read: ${error.message}`)
    }
    if (password === '') throw new SettingsError(`RCON_PASSWORD_FILE ${file} is empty`)
  }
  // Nobody could log in without a password, and a default one would let everybody in.
  if (password === '') return null
  return { port: whole(get('RCON_PORT', '25575'), 'RCON_PORT', 1, 65535), password }
}

module.exports = { read, SettingsError }
