// ops.json and whitelist.json, as Minecraft and itzg/minecraft-server keep them.
'use strict'

const crypto = require('crypto')
const fs = require('fs')

const UUID = /^([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})$/

// The UUID of a player whose account is not verified. This server cannot ask Mojang for another one.
function offlineUuid (name) {
  const hash = crypto.createHash('md5').update(`OfflinePlayer:${name}`).digest()
  hash[6] = (hash[6] & 0x0f) | 0x30
  hash[8] = (hash[8] & 0x3f) | 0x80
  return hash.toString('hex').replace(UUID, '$1-$2-$3-$4-$5')
}

class Players {
  /** @param {Object} rights the other fields of an entry in this file, besides name and UUID */
  constructor (file, rights = {}) {
    this.file = file
    this.rights = rights
    this.load()
  }

  load () {
    this.entries = fs.existsSync(this.file) ? JSON.parse(fs.readFileSync(this.file, 'utf8')) : []
  }

  names () {
    return this.entries.map(entry => entry.name || entry.uuid)
  }

  has ({ username, uuid }) {
    return this.entries.some(entry => entry.uuid === uuid || this._named(entry, username))
  }

  /** @returns {boolean} whether this changed anything */
  add (name) {
    return this._become([...this.entries, this._entry(name)])
  }

  remove (name) {
    return this._become(this.entries.filter(entry => entry.uuid !== this._entry(name).uuid))
  }

  /** Apply a list of names and UUIDs as the image does, with `existing` as in EXISTING_OPS_FILE. */
  take (names, existing) {
    if (existing === 'SKIP' && fs.existsSync(this.file)) return
    const entries = names.map(name => this._entry(name))
    this._become(existing === 'SYNCHRONIZE' ? entries : [...this.entries, ...entries])
  }

  _named (entry, name) {
    return entry.name !== '' && entry.name.toLowerCase() === name.toLowerCase()
  }

  // A player who is listed already keeps the entry: UUID, name and rights.
  _entry (name) {
    const uuid = UUID.test(name) ? name.replace(UUID, '$1-$2-$3-$4-$5') : undefined
    const existing = this.entries.find(entry => uuid ? entry.uuid === uuid : this._named(entry, name))
    return existing ?? { uuid: uuid ?? offlineUuid(name), name: uuid ? '' : name, ...this.rights }
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

module.exports = { Players, offlineUuid }
