// Runs at build time: removes every version except the served one from minecraft-data (400 MB).
'use strict'

const fs = require('fs')
const path = require('path')

const SERVED = '1.21.4'
const root = path.dirname(require.resolve('minecraft-data'))
const data = path.join(root, 'minecraft-data', 'data')

// A version's files are in the folders of the versions that last changed them. Reading every property of the version
// loads exactly those files.
require('minecraft-data')
const version = require(path.join(root, 'data.js')).pc[SERVED]
for (const name of Object.keys(version)) void version[name]
const loaded = new Set(Object.keys(require.cache))

for (const name of fs.readdirSync(data, { recursive: true })) {
  const file = path.join(data, name)
  const common = name.split(path.sep)[1] === 'common' || path.dirname(name) === '.'
  if (fs.statSync(file).isFile() && !common && !loaded.has(file)) fs.unlinkSync(file)
}
