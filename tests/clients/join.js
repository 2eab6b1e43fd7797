#!/usr/bin/env node
// A Minecraft 1.21.4 player: joins, optionally changes the world, prints what it sees as JSON, leaves.
//
//   join.js HOST PORT NAME [--dig X,Y,Z] [--place X,Y,Z] [--look X,Y,Z]… [--move X,Y,Z] [--stay SECONDS]
//
// --dig    removes the block; --place puts the held item's block there, on top of the one below.
// --look   reads a block. --move changes the own position.
// --stay   stays that long after all this, or until the server ends the connection.
// The one line of JSON: {joined, name, uuid, gameMode, position, chunks, below, placed, dug, blocks,
// inventory, messages, ended}; a failure is {joined: false, error} and exit code 1.
'use strict'

const { parseArgs } = require('util')
const { createClient } = require('minecraft-protocol')
const { Vec3 } = require('vec3')

const VERSION = '1.21.4'
const MODES = ['survival', 'creative', 'adventure', 'spectator']
const TIMEOUT_MS = 30000
const registry = require('prismarine-registry')(VERSION)
const Chunk = require('prismarine-chunk')(registry)

const { values: options, positionals: [host, port, name] } = parseArgs({
  allowPositionals: true,
  options: {
    dig: { type: 'string' },
    place: { type: 'string' },
    look: { type: 'string', multiple: true, default: [] },
    move: { type: 'string' },
    stay: { type: 'string', default: '0' }
  }
})
if (!name) {
  console.error('usage: join.js HOST PORT NAME [--dig X,Y,Z] [--place X,Y,Z] [--look X,Y,Z] [--move X,Y,Z] [--stay SECONDS]')
  process.exit(2)
}

const seen = { joined: false, name, blocks: {}, inventory: {}, messages: [], ended: null }
const columns = new Map()

function end (code) {
  process.stdout.write(JSON.stringify(seen) + '\n', () => process.exit(code))
}

function fail (message) {
  seen.error ??= message
  end(1)
}

const sleep = seconds => new Promise(resolve => setTimeout(resolve, seconds * 1000))
const position = text => new Vec3(...text.split(',').map(Number))
const column = at => columns.get(`${Math.floor(at.x / 16)},${Math.floor(at.z / 16)}`)
const inColumn = at => new Vec3(at.x & 15, Math.floor(at.y), at.z & 15)
const block = at => column(at)?.getBlock(inColumn(at)).name ?? null

async function until (true_, what) {
  const deadline = Date.now() + TIMEOUT_MS
  while (!true_()) {
    if (Date.now() > deadline) throw new Error(`waited in vain for ${what}`)
    await sleep(0.05)
  }
}

// Chat texts come as NBT or JSON, nested in many ways: all strings of the "text" keys, in order.
function texts (node) {
  if (node === null || typeof node !== 'object') return ''
  return Object.entries(node)
    .map(([key, value]) => key === 'text' ? (typeof value === 'string' ? value : String(value.value ?? '')) : texts(value))
    .join('')
}

const client = createClient({ host, port: Number(port), username: name, version: VERSION, auth: 'offline' })
const timer = setTimeout(() => fail(`not joined within ${TIMEOUT_MS / 1000} s`), TIMEOUT_MS)

client.on('error', error => fail(error.message))
client.on('disconnect', packet => { seen.ended = texts(JSON.parse(packet.reason)) || packet.reason })
client.on('kick_disconnect', packet => { seen.ended = texts(packet.reason) })
client.on('end', reason => {
  seen.ended ??= reason
  if (seen.joined) end(0)
  else fail(`the server ended the connection: ${seen.ended}`)
})
client.on('login', packet => { seen.gameMode = packet.worldState.gamemode })
client.on('game_state_change', ({ reason, gameMode }) => {
  if (reason === 3 || reason === 'change_game_mode') seen.gameMode = MODES[gameMode]
})
client.on('system_chat', packet => seen.messages.push(texts(packet.content)))
client.on('map_chunk', packet => {
  const chunk = new Chunk()
  chunk.load(packet.chunkData)
  columns.set(`${packet.x},${packet.z}`, chunk)
})
client.on('block_change', ({ location: at, type }) => {
  column(at)?.setBlockStateId(inColumn(at), type)
})
client.on('set_slot', ({ windowId, slot, item }) => {
  if (windowId !== 0) return
  if (item.itemCount > 0) seen.inventory[slot] = { name: registry.items[item.itemId].name, count: item.itemCount }
  else delete seen.inventory[slot]
})
client.on('position', packet => {
  seen.position = [packet.x, packet.y, packet.z]
  client.write('teleport_confirm', { teleportId: packet.teleportId })
})

async function play () {
  await until(() => seen.position && column(new Vec3(...seen.position)), 'the world')
  const at = new Vec3(...seen.position).floored()
  clearTimeout(timer)
  Object.assign(seen, { joined: true, uuid: client.uuid, below: block(at.offset(0, -1, 0)) })
  client.write('player_loaded', {})
  client.write('position_look', { x: at.x + 0.5, y: at.y, z: at.z + 0.5, yaw: 0, pitch: 0, flags: { onGround: true } })
  await sleep(0.5)
  client.write('look', { yaw: 90, pitch: 0, flags: { onGround: true } })
  if (options.dig) await dig(position(options.dig))
  if (options.place) await place(position(options.place))
  if (options.move) {
    const { x, y, z } = position(options.move)
    client.write('position', { x, y, z, flags: { onGround: true } })
    seen.position = [x, y, z]
  }
  for (const text of options.look) {
    await until(() => column(position(text)), `the chunk at ${text}`)
    seen.blocks[text] = block(position(text))
  }
  await sleep(Math.max(0.3, Number(options.stay)))
  seen.chunks = columns.size
  client.end('left')
}

async function dig (at) {
  await until(() => column(at), 'the chunk to dig in')
  seen.dug = block(at)
  const packet = { location: at, face: 1, sequence: 1 }
  client.write('block_dig', { status: 0, ...packet })
  // By hand, as a new player: the time comes from the block's hardness.
  await sleep(registry.blocksByName[seen.dug].hardness * 5 + 0.3)
  client.write('block_dig', { status: 2, ...packet, sequence: 2 })
  await sleep(0.5)
}

async function place (at) {
  await until(() => column(at), 'the chunk to build in')
  const below = at.offset(0, -1, 0)
  client.write('block_place', {
    hand: 0, location: below, direction: 1, cursorX: 0.5, cursorY: 1, cursorZ: 0.5, insideBlock: false,
    worldBorderHit: false, sequence: 3
  })
  await until(() => block(at) !== 'air', 'the block to be placed')
  seen.placed = block(at)
}

play().catch(error => fail(error.message))
