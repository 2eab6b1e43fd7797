// Java's .properties files, as java.util.Properties reads and writes them.
'use strict'

const READ = { t: '\t', n: '\n', r: '\r', f: '\f' }
const WRITTEN = { '\t': '\\t', '\n': '\\n', '\r': '\\r', '\f': '\\f' }

const unescaped = text => text.replace(/\\(?:u([0-9a-fA-F]{4})|([^]))/g,
  (_, code, sign) => code ? String.fromCharCode(parseInt(code, 16)) : READ[sign] ?? sign)
const escaped = text => text.replace(/[\\\t\n\r\f=:#!]/g, sign => WRITTEN[sign] ?? `\\${sign}`)

/** @returns {Object<string, string>} the properties in the text; the last one, if a key occurs twice */
function parse (text) {
  const lines = []
  let open = false
  for (const line of text.split(/\r\n|\r|\n/)) {
    const part = line.replace(/^[ \t\f]+/, '')
    if (!open && (part === '' || part[0] === '#' || part[0] === '!')) continue
    lines.push((open ? lines.pop() : '') + part)
    // A line with an odd number of backslashes at its end continues on the next line.
    open = /(?:^|[^\\])(?:\\\\)*\\$/.test(lines.at(-1))
    if (open) lines.push(lines.pop().slice(0, -1))
  }
  return Object.fromEntries(lines.map(line => {
    const [, key, value] = line.match(/^((?:\\[^]|[^\\=: \t\f])*)[ \t\f]*[=:]?[ \t\f]*([^]*)$/)
    return [unescaped(key), unescaped(value)]
  }))
}

function format (properties, comment) {
  const lines = Object.keys(properties).sort().map(key =>
    `${escaped(key).replace(/ /g, '\\ ')}=${escaped(properties[key]).replace(/^ /, '\\ ')}`)
  return [`#${comment}`, `#${new Date().toUTCString()}`, ...lines, ''].join('\n')
}

module.exports = { parse, format }
