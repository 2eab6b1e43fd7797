// ops.json and whitelist.json, as Minecraft and itzg/minecraft-server keep them.
'use strict'

const crypto = require('crypto')
const fs = require('fs')

const UUID = /^([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})$/

function hashed (text, version) {
  const hash = crypto.createHash('md5').update(text).digest()
  hash[6] = (hash[6] & 0x0f) | (version << 4)
  hash[8] = (hash[8] & 0x3f) | 0x80
  return hash.toString('hex').replace(UUID, '$1-$2-$3-$4-$5')
}

/** The UUID of a player whose account is not verified. */
const offlineUuid = name => hashed(`OfflinePlayer:${name}`, 3)

/** In place of the UUID that Mojang gave the account: another one, and the same for any capital letters. */
const onlineUuid = name => hashed(`OnlinePlayer:${name.toLowerCase()}`, 4)

const same = (name, other) => name.toLowerCase() === other.toLowerCase()

class Players {
  /**
   * @param {boolean} online whether the server verifies accounts, so that players have the UUIDs of those
   * @param {Object} rights the other fields of an entry in this file, besides name and UUID
   */
  constructor (file, online, rights = {}) {
    this.file = file
    this.uuidOf = online ? onlineUuid : offlineUuid
    this.rights = rights
    this.load()
  }

  load () {
    this.entries = fs.existsSync(this.file) ? JSON.parse(fs.readFileSync(this.file, 'utf8')) : []
  }

  names () {
    return this.entries.map(entry => entry.name || entry.uuid)
  }

  has ({ username }) {
    return this.entries.some(entry => entry.uuid === this.uuidOf(username))
  }

  /** @returns {boolean} whether this changed anything */
  add (name) {
    const uuid = this.uuidOf(name)
    return this.entries.every(entry => entry.uuid !== uuid) &&
      this._become([...this.entries, { uuid, name, ...this.rights }])
  }

  remove (name) {
    return this._become(this.entries.filter(entry => entry.uuid !== this.uuidOf(name)))
  }

  /**
   * Apply a list of names and UUIDs as the image does.
   * @param {string} existing as in EXISTING_OPS_FILE
   * @param {function(string): string} lookUp gives the UUID of a name
   */
  take (names, existing, lookUp) {
    if (existing === 'SKIP' && fs.existsSync(this.file)) return
    const entries = names.map(name => this._entry(name, lookUp))
    this._become(existing === 'SYNCHRONIZE' ? entries : [...this.entries, ...entries])
  }

  // A name that is listed already keeps its spelling and rights, and gets the UUID that is found now.
  _entry (name, lookUp) {
    if (UUID.test(name)) {
      const uuid = name.replace(UUID, '$1-$2-$3-$4-$5')
      return this.entries.find(entry => entry.uuid === uuid) ?? { uuid, name: '', ...this.rights }
    }
    const existing = this.entries.find(entry => same(entry.name, name))
    return { ...(existing ?? { name, ...this.rights }), uuid: lookUp(name) }
  }

  _become (entries) {
    const unique = [...new Map(entries.map(entry => [entry.uuid, entry])).values()]
    const text = JSON.stringify(unique, null, 2)
    const changed = text !== JSON.stringify(this.entries, null, 2)
    this.entries = unique
    if (changed || !fs.existsSync(this.file)) {
      fs.writeFileSync(`${this.file}.new`, text)
      fs.renameSync(`${this.file}.new`, this.file)
    }
    return changed
  }
}

module.exports = { Players, offlineUuid, onlineUuid, same }
