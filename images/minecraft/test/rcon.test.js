'use strict'

const assert = require('node:assert')
const net = require('node:net')
const { after, before, test } = require('node:test')
const rcon = require('../server/rcon')

let server
let ran

before(async () => {
  server = await rcon.listen({ port: 0, password: 'right' }, async line => {
    ran.push(line)
    return line === 'long' ? 'x'.repeat(10000) : `did ${line}`
  })
})
after(() => server.close())

function packet (id, type, body) {
  const data = Buffer.alloc(14 + body.length)
  data.writeInt32LE(10 + body.length, 0)
  data.writeInt32LE(id, 4)
  data.writeInt32LE(type, 8)
  data.write(body, 12)
  return data
}

/** Send these bytes; resolves with all packets [id, type, body] once `count` have come, or at the end. */
function talk (count, ...data) {
  ran = []
  return new Promise(resolve => {
    const packets = []
    let rest = Buffer.alloc(0)
    const socket = net.connect(server.address().port, '127.0.0.1', () => socket.write(Buffer.concat(data)))
    socket.on('error', () => {})
    socket.on('close', () => resolve(packets))
    socket.on('data', part => {
      rest = Buffer.concat([rest, part])
      while (rest.length >= 4 && rest.length >= 4 + rest.readInt32LE(0)) {
        const end = 4 + rest.readInt32LE(0)
        packets.push([rest.readInt32LE(4), rest.readInt32LE(8), rest.toString('utf8', 12, end - 2)])
        rest = rest.subarray(end)
      }
      if (packets.length >= count) socket.end()
    })
  })
}

test('after the right password a command is run and answered', async () => {
  const packets = await talk(2, packet(7, 3, 'right'), packet(8, 2, 'list'))
  assert.deepStrictEqual(packets, [[7, 2, ''], [8, 0, 'did list']])
})

test('a wrong password is refused, and nothing after it is run', async () => {
  const packets = await talk(9, packet(7, 3, 'wrong'), packet(7, 3, 'right'), packet(8, 2, 'list'))
  assert.deepStrictEqual(packets, [[-1, 2, '']])
  assert.deepStrictEqual(ran, [])
})

test('without a password nothing is run', async () => {
  assert.deepStrictEqual(await talk(9, packet(8, 2, 'stop')), [[-1, 2, '']])
  assert.deepStrictEqual(ran, [])
})

test('a long answer comes in parts, and a packet of another type shows its end', async () => {
  const packets = await talk(5, packet(1, 3, 'right'), packet(2, 2, 'long'), packet(3, 0, ''))
  assert.deepStrictEqual(packets.map(([id, , body]) => [id, body.length]),
    [[1, 0], [2, 4096], [2, 4096], [2, 1808], [3, 17]])
})

test('a length that no command has ends the connection', async () => {
  for (const length of [-1, 0, 9, 5000, 2 ** 31 - 1]) {
    const data = Buffer.alloc(64)
    data.writeInt32LE(length, 0)
    assert.deepStrictEqual(await talk(9, data), [], String(length))
  }
})
