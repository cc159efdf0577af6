'use strict';
// InfluxDB's line protocol in, JSON out: what many gateways send, in a form that scripts read.
//
//   tinyfaas invoke lines --data 'weather,site=roof temp=21.5,wet=false 1700000000'
//
// With ?pretty in the query the JSON is indented. A line that cannot be read is a 400 that names it.

/** Splits at `separator` where it is neither escaped nor in quotes. */
function split(text, separator) {
  const parts = [''];
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === '\\' && i + 1 < text.length) parts[parts.length - 1] += c + text[++i];
    else if (c === separator && !quoted) parts.push('');
    else {
      if (c === '"') quoted = !quoted;
      parts[parts.length - 1] += c;
    }
  }
  return parts;
}

const plain = (text) => text.replace(/\\(.)/g, '$1');

function value(text) {
  if (/^".*"$/s.test(text)) return plain(text.slice(1, -1));
  if (/^(t|true)$/i.test(text)) return true;
  if (/^(f|false)$/i.test(text)) return false;
  const number = Number(text.replace(/[iu]$/, ''));
  if (text === '' || Number.isNaN(number)) throw new Error(`${text} is no value`);
  return number;
}

function pairs(texts, read) {
  return Object.fromEntries(texts.map((text) => {
    const [key, ...rest] = split(text, '=');
    if (!key || rest.length !== 1) throw new Error(`${text} is no key=value`);
    return [plain(key), read(rest[0])];
  }));
}

function parse(line) {
  const [series, fields, time] = split(line, ' ');
  if (!fields) throw new Error('a line needs a measurement and a field, such as weather temp=21.5');
  const [measurement, ...tags] = split(series, ',');
  const point = { measurement: plain(measurement), tags: pairs(tags, plain), fields: pairs(split(fields, ','), value) };
  if (time) point.time = time;
  return point;
}

module.exports = (req, res) => {
  const points = [];
  for (const [index, line] of req.body.split('\n').map((l) => l.trim()).entries()) {
    if (!line || line.startsWith('#')) continue;
    try {
      points.push(parse(line));
    } catch (error) {
      return res.status(400).type('text').send(`line ${index + 1}: ${error.message}\n`);
    }
  }
  res.type('json').send(JSON.stringify(points, null, 'pretty' in req.query ? 2 : 0) + '\n');
};
