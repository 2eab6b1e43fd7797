// flying-squid, with the features that users of itzg/minecraft-server expect. The working folder is the data folder.
'use strict'

// Until the server has started, there is nothing to save and nobody to notify. Loading the modules takes a while.
let started = false
let onSignal = () => process.exit(0)
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => onSignal(signal))

const path = require('path')
const log = require('./log')
const settingsOf = require('./settings')

// Replace flying-squid's log plugin before flying-squid loads it.
const ownLog = require.resolve('flying-squid/src/lib/plugins/log')
require.cache[ownLog] = { id: ownLog, filename: ownLog, loaded: true, exports: log.plugin }

const squid = require('flying-squid')
const commands = require('./commands')
const rcon = require('./rcon')
const { Storage, prepare } = require('./storage')

const KICK_MS = 2000
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))

function fail (message) {
  log.error(message)
  process.exit(1)
}

function squidOptions (settings, folder, storageReady) {
  return {
    version: settings.version,
    port: settings.port,
    host: settings.host,
    motd: settings.motd,
    'max-players': settings.maxPlayers,
    'view-distance': settings.viewDistance,
    gameMode: settings.gameMode,
    difficulty: settings.difficulty,
    // A cluster without Internet access cannot reach Mojang.
    'online-mode': false,
    'everybody-op': false,
    'player-list-text': { header: { text: '' }, footer: { text: '' } },
    'max-entities': 100,
    kickTimeout: 30000,
    worldFolder: folder,
    generation: { name: settings.generator, options: { worldHeight: 80, seed: settings.seed } },
    plugins: {},
    modpe: false,
    hideErrors: true,
    // Answer a status request only if players can join. (Without the third parameter, false would be an answer.)
    beforePing: (response, client, answer) => answer(null, settings.status && storageReady() && response)
  }
}

function welcome (serv, settings) {
  // Since 1.20.2, a client sends its view distance before it becomes a player. flying-squid misses that, and would send
  // no more than the first chunks.
  serv._server.on('connection', client => {
    client.on('settings', ({ viewDistance }) => { client.viewDistance = viewDistance })
  })
  serv.on('newPlayer', player => {
    player.view = player._client.viewDistance ?? settings.viewDistance
    // The login packet always says survival.
    player.on('spawned', () => player.setGameMode(player.gameMode))
    const login = player.login
    player.login = async () => {
      const op = settings.operators.has(player._client)
      if (settings.properties['white-list'] === 'true' && !op && !settings.whitelist.has(player._client)) {
        player.kick('You are not white-listed on this server!')
        return
      }
      player.on('connected', () => { player.op = op })
      await login()
    }
  })
}

async function main () {
  const since = Date.now()
  const settings = settingsOf.read(process.env, process.cwd())
  const folder = path.resolve(settings.level)
  await prepare(folder, settings)

  let ready = false
  let seed = settings.seed
  const serv = squid.createMCServer(squidOptions(settings, folder, () => ready))
  serv.on('seed', value => { seed = value })
  serv.on('error', error => { if (!ready) fail(`The server could not start: ${error.message}`) })
  const storage = new Storage(serv, folder)
  welcome(serv, settings)

  let stopping = false
  async function stop (reason) {
    if (stopping) return
    stopping = true
    log.info(`Stopping the server (${reason})`)
    if (settings.announceSeconds > 0 && serv.players.length > 0) {
      serv.broadcast(`Server shutting down in ${settings.announceSeconds} seconds`)
      log.info(`Told the players; waiting ${settings.announceSeconds} seconds`)
      await sleep(settings.announceSeconds * 1000)
    }
    serv.broadcast('Server shutting down')
    ready = false
    if (settings.stopSeconds > 0) {
      setTimeout(() => {
        log.error('Took too long, so killing server process')
        process.kill(process.pid, 'SIGKILL')
      }, settings.stopSeconds * 1000)
    }
    try {
      // Save before the players are kicked, because a broken connection must not lose anything.
      await Promise.all(serv.players.map(player => player.save()))
      const gone = serv.players.map(player => new Promise(resolve => player.once('disconnected', resolve)))
      for (const player of serv.players) player.kick('Server closed')
      serv._server.close()
      await Promise.race([Promise.all(gone), sleep(KICK_MS)])
      await storage.close()
    } catch (error) {
      fail(`The world could not be saved: ${error.message}`)
    }
    log.info(`All worlds are saved in ${folder}`)
    process.exit(0)
  }

  await new Promise(resolve => serv.pluginsReady ? resolve() : serv.once('pluginsReady', resolve))
  storage.start()
  commands.add(serv, settings, { storage, seed: () => seed, stop })
  if (settings.rcon) {
    await rcon.listen(settings.rcon, line => {
      log.info(`RCON: ${line}`)
      return commands.run(serv, line)
    })
    log.info(`RCON running on port ${settings.rcon.port}`)
  } else {
    log.info('RCON is off')
  }
  ready = started = true
  onSignal = stop
  log.info(`Minecraft ${settings.version}, seed ${seed}, world ${folder}, port ${settings.port}`)
  log.info(`Done (${(Date.now() - since) / 1000}s)! For help, type "help"`)
}

// One player's malformed packet or command must not end the game for everyone, and without a save.
for (const event of ['uncaughtException', 'unhandledRejection']) {
  process.on(event, error => started ? log.error(error?.stack ?? error) : fail(error?.stack ?? error))
}

main().catch(error => fail(error instanceof settingsOf.SettingsError || error.code ? error.message : error.stack))
