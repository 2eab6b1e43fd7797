// The log: lines of plain text on standard output. It replaces flying-squid's own log plugin, which writes files, takes
// over the terminal, and ends the process on SIGTERM without a save.
'use strict'

const { AsyncLocalStorage } = require('async_hooks')

// The lines that a console command prints are its answer to the sender (RCON).
const answers = new AsyncLocalStorage()

// Players' messages are logged: with control characters, players could forge lines and colours.
function plain (message) {
  return String(message).replace(/\x1b\[[0-9;]*m/g, '').replace(/[\x00-\x09\x0b-\x1f\x7f-\x9f]/g, ' ').trimEnd()
}

function write (level, message) {
  const time = new Date().toISOString().slice(11, 19)
  process.stdout.write(`[${time}] [${level}]: ${plain(message).replace(/\n/g, '\n    ')}\n`)
}

function info (message) {
  answers.getStore()?.push(plain(message))
  write('INFO', message)
}

/** Run a command; returns the lines that it has logged, and its result. */
async function answerOf (run) {
  const lines = []
  const result = await answers.run(lines, run)
  return result ? [...lines, String(result)] : lines
}

const warn = message => write('WARN', message)
const error = message => write('ERROR', message)

const plugin = {
  server (serv) {
    Object.assign(serv, { log: info, info, warn, err: error, createLog () {} })
    // If there is a debug function, flying-squid leaves uncaught errors to main.js.
    serv.debug = () => {}
    serv.on('error', cause => error(cause.stack))
    serv.on('clientError', (client, cause) => {
      // Status pings often just close the connection, and the probe sends one every two seconds.
      if (cause.code !== 'ECONNRESET' && cause.code !== 'EPIPE') info(`${client.socket?.remoteAddress}: ${cause.message}`)
    })
    serv.on('banned', (by, name, reason) => info(`${by.username} banned ${name} ${reason ?? ''}`))
  },
  player (player) {
    player.on('connected', () => info(`${player.username} joined the game`))
    player.on('disconnected', () => { if (player.username) info(`${player.username} left the game`) })
    player.on('chat', ({ message }) => info(`<${player.username}> ${message}`))
    player.on('kicked', (by, reason) => info(`${by.username} kicked ${player.username} ${reason ?? ''}`))
  }
}

module.exports = { answerOf, error, info, plugin, warn }
