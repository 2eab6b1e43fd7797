// Run at build time: removes from minecraft-data every version but the one that is served (400 MB).
'use strict'

const fs = require('fs')
const path = require('path')

const SERVED = '1.21.4'
const root = path.dirname(require.resolve('minecraft-data'))
const data = path.join(root, 'minecraft-data', 'data')

// The files of a version are spread over the folders of the versions that last changed them; reading
// every property of the version loads exactly those.
require('minecraft-data')
const version = require(path.join(root, 'data.js')).pc[SERVED]
for (const name of Object.keys(version)) void version[name]
const wanted = new Set(Object.keys(require.cache))

for (const name of fs.readdirSync(data, { recursive: true })) {
  const file = path.join(data, name)
  const common = name.split(path.sep)[1] === 'common' || path.dirname(name) === '.'
  if (fs.statSync(file).isFile() && !common && !wanted.has(file)) fs.unlinkSync(file)
}
