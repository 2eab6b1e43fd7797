// Remote console: the Source RCON protocol (https://developer.valvesoftware.com/wiki/Source_RCON_Protocol).
'use strict'

const crypto = require('crypto')
const net = require('net')

const ANSWER = 0
const COMMAND = 2
const LOGIN = 3
const ANSWER_BYTES = 4096
// Longer than any command. A larger length is not RCON, and would fill the memory.
const MAX_BYTES = 4096 + 10
const MAX_CLIENTS = 32
const LOGIN_MS = 5000
// Passwords are guessed over the Internet, so allow one guess per connection, and answer a wrong one slowly.
const WRONG_MS = 1000

function packet (id, type, body) {
  const text = Buffer.from(body)
  const data = Buffer.alloc(14 + text.length)
  data.writeInt32LE(10 + text.length, 0)
  data.writeInt32LE(id, 4)
  data.writeInt32LE(type, 8)
  text.copy(data, 12)
  return data
}

const digest = text => crypto.createHash('sha256').update(text).digest()

/**
 * @param {function(string): Promise<string>} run runs a command line and returns its answer
 * @returns {Promise<net.Server>} once it listens
 */
function listen ({ port, password }, run) {
  const expected = digest(password)

  async function handle (socket, id, type, body) {
    if (type === LOGIN) {
      if (!crypto.timingSafeEqual(digest(body), expected)) {
        await new Promise(resolve => setTimeout(resolve, WRONG_MS))
        socket.end(packet(-1, COMMAND, ''))
        return false
      }
      socket.setTimeout(0)
      socket.authorised = true
      socket.write(packet(id, COMMAND, ''))
    } else if (!socket.authorised) {
      socket.end(packet(-1, COMMAND, ''))
      return false
    } else if (type === COMMAND) {
      const answer = Buffer.from(await run(body))
      for (let at = 0; at === 0 || at < answer.length; at += ANSWER_BYTES) {
        socket.write(packet(id, ANSWER, answer.subarray(at, at + ANSWER_BYTES)))
      }
    } else {
      // Clients send a packet of an unknown type to find the end of a long answer.
      socket.write(packet(id, ANSWER, `Unknown request ${type.toString(16)}`))
    }
    return true
  }

  async function serve (socket) {
    let data = Buffer.alloc(0)
    for await (const part of socket) {
      data = Buffer.concat([data, part])
      while (data.length >= 4) {
        const length = data.readInt32LE(0)
        if (length < 10 || length > MAX_BYTES) return socket.destroy()
        if (data.length < 4 + length) break
        const body = data.toString('utf8', 12, 4 + length - 2)
        const open = await handle(socket, data.readInt32LE(4), data.readInt32LE(8), body)
        if (!open) return
        data = data.subarray(4 + length)
      }
    }
  }

  const server = net.createServer(socket => {
    socket.setTimeout(LOGIN_MS, () => socket.destroy())
    serve(socket).catch(() => socket.destroy())
  })
  server.maxConnections = MAX_CLIENTS
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, () => resolve(server))
  })
}

module.exports = { listen }
