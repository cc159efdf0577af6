'use strict';
// Runs the function that the module in TINYFAAS_FUNCTION_DIR exports: HTTP/1.1 on the unix socket TINYFAAS_SOCKET, else on TCP 8000.
//
// The function sees what express would show it, as far as express's req and res are used for one answer; the class Request
// and the class Response below are all there is. Nothing but node's own http is loaded: RAM.

const http = require('node:http');
const fs = require('node:fs');

const PORT = 8000;
const BACKLOG = 4096;
// Longest request head in bytes: the front doors' bound of 16 KiB, and room for the fields that the runtime adds.
const MAX_HEAD = 20 * 1024;
// How long no call runs before garbage is collected, in milliseconds, and how many bytes the process has grown by then.
const QUIET = 500;
const GROWN = 12 * 1024 * 1024;
// Collections in a row at most: what they cannot free is in use.
const ROUNDS = 4;

const folder = process.env.TINYFAAS_FUNCTION_DIR || '/fn';
const limit = Number(process.env.TINYFAAS_CONCURRENCY || 8);

class Request extends http.IncomingMessage {
  get(name) {
    name = String(name).toLowerCase();
    return this.headers[name === 'referrer' ? 'referer' : name];
  }

  header(name) {
    return this.get(name);
  }

  /** Takes over the caller's method, path and query, which came as headers, and the body. */
  prepare(body) {
    this.method = this.headers['x-tinyfaas-method'] || this.method;
    this.path = this.headers['x-tinyfaas-path'] || '/';
    const query = this.headers['x-tinyfaas-query'] || '';
    this.url = this.originalUrl = query ? this.path + '?' + query : this.path;
    this.query = query ? { ...require('node:querystring').parse(query) } : {};
    this.rawBody = body;
    this.body = body.toString('utf8');
  }
}

class Response extends http.ServerResponse {
  status(code) {
    this.statusCode = code;
    return this;
  }

  sendStatus(code) {
    return this.status(code).type('text/plain').send(http.STATUS_CODES[code] || String(code));
  }

  set(name, value) {
    if (name !== null && typeof name === 'object') {
      for (const key of Object.keys(name)) this.set(key, name[key]);
    } else {
      this.setHeader(name, Array.isArray(value) ? value.map(String) : String(value));
    }
    return this;
  }

  header(name, value) {
    return this.set(name, value);
  }

  get(name) {
    return this.getHeader(name);
  }

  append(name, value) {
    const had = this.getHeader(name);
    return this.set(name, had === undefined ? value : [].concat(had, value));
  }

  type(kind) {
    const short = { html: 'text/html', json: 'application/json', text: 'text/plain', txt: 'text/plain', bin: 'application/octet-stream', xml: 'application/xml', csv: 'text/csv' };
    const full = kind.includes('/') ? kind : short[kind] || 'application/octet-stream';
    const text = full.startsWith('text/') || full === 'application/json';
    return this.set('Content-Type', text && !full.includes('charset') ? full + '; charset=utf-8' : full);
  }

  json(value) {
    if (!this.hasHeader('content-type')) this.type('json');
    return this.send(JSON.stringify(value) ?? '');
  }

  send(body) {
    if (typeof body === 'string') {
      if (!this.hasHeader('content-type')) this.type('html');
    } else if (body === undefined || body === null) {
      body = '';
    } else if (ArrayBuffer.isView(body)) {
      if (!Buffer.isBuffer(body)) body = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
      if (!this.hasHeader('content-type')) this.type('bin');
    } else {
      return this.json(body);
    }
    if (this.statusCode === 204 || this.statusCode === 304) {
      this.removeHeader('content-type');
      this.removeHeader('content-length');
      this.end();
    } else {
      this.setHeader('Content-Length', Buffer.byteLength(body));
      this.removeHeader('transfer-encoding');
      this.end(body);
    }
    return this;
  }
}

function print(error, before = '') {
  process.stderr.write(before + (error instanceof Error && error.stack ? error.stack : 'Error: ' + describe(error)) + '\n');
}

function describe(error) {
  try {
    return error instanceof Error ? String(error.message || error.name) : String(error);
  } catch {
    return 'the function failed with something that cannot be shown';
  }
}

/** Ends the call with the function's error; the handler lives on. */
function fail(res, error) {
  print(error, `call ${res.req.headers['x-call-id'] ?? 'without an id'} failed:\n`);
  // The answer was given before the function failed: it stands.
  if (res.writableEnded) return;
  if (res.headersSent) {
    // The head promised something else: only a broken connection says that the body is not whole.
    res.destroy();
    return;
  }
  for (const name of res.getHeaderNames()) res.removeHeader(name);
  res.status(500).type('text').send(describe(error));
}

/** Finds the function in what its module exports, be that CommonJS or an ES module. */
async function load() {
  process.chdir(folder);
  const path = require('node:path');
  const root = path.resolve(folder);
  let file;
  for (const name of [root, 'fn.js', 'fn.mjs', 'fn.cjs', 'index.mjs']) {
    try {
      file = require.resolve(path.resolve(root, name));
      break;
    } catch (error) {
      if (error.code !== 'MODULE_NOT_FOUND') throw error;
    }
  }
  if (!file) throw new Error('no module in the function: it needs a package.json with "main", an index.js or a fn.js');
  let module;
  try {
    module = require(file);
  } catch (error) {
    if (error.code !== 'ERR_REQUIRE_ESM' && error.code !== 'ERR_REQUIRE_ASYNC_MODULE') throw error;
    module = await import(require('node:url').pathToFileURL(file));
  }
  for (let depth = 0; depth < 2 && module && typeof module !== 'function'; depth++) module = module.default;
  if (typeof module !== 'function') throw new TypeError('the module exports no function: write module.exports = (req, res) => { ... }');
  return module;
}

let fn;
let running = 0;
const waiting = [];

function next() {
  running--;
  const call = waiting.shift();
  if (call) call();
  else if (running === 0) {
    rounds = 0;
    idle?.refresh();
  }
}

// V8 lets garbage stand until its heap is full: after three bodies of 20 MiB that was 170 MB of nothing. So it is collected
// when no call runs for a while and the process has grown; more than once, for memory outside the heap follows a round later.
// The function does not see `gc`: node alone gives it none.
const collect = globalThis.gc;
globalThis.gc = undefined;
let settled = process.memoryUsage.rss();
let rounds = 0;
const idle = collect && setTimeout(() => {
  if (running > 0 || process.memoryUsage.rss() < settled + GROWN) return;
  collect();
  if (++rounds < ROUNDS) idle.refresh();
  else settled = process.memoryUsage.rss();
}, QUIET).unref();

function invoke(req, res) {
  running++;
  // Once for each response, whether it was sent or broke off.
  res.on('close', next);
  const pieces = [];
  req.on('data', (piece) => pieces.push(piece));
  req.on('end', () => {
    try {
      req.prepare(pieces.length === 1 ? pieces[0] : Buffer.concat(pieces));
      pieces.length = 0;
      const result = fn(req, res);
      if (result && typeof result.then === 'function') result.then(undefined, (error) => fail(res, error));
    } catch (error) {
      fail(res, error);
    }
  });
}

function answer(req, res) {
  // A peer that goes away is no error of anybody; 'close' follows.
  req.on('error', () => {});
  res.on('error', () => {});
  const at = req.url.indexOf('?');
  const path = at < 0 ? req.url : req.url.slice(0, at);
  if (path === '/fn' && req.method === 'POST') {
    if (running < limit) return invoke(req, res);
    const call = () => {
      res.off('close', drop);
      invoke(req, res);
    };
    const drop = () => {
      const at = waiting.indexOf(call);
      if (at >= 0) waiting.splice(at, 1);
    };
    res.on('close', drop);
    waiting.push(call);
    return;
  }
  req.resume();
  res.type('text');
  if (path === '/health' && req.method === 'GET') res.send('ok\n');
  else if (path === '/fn' || path === '/health') res.status(405).send('use GET /health or POST /fn\n');
  else res.status(404).send('there is only /health and /fn\n');
}

function listen() {
  const options = {
    IncomingMessage: Request,
    ServerResponse: Response,
    maxHeaderSize: MAX_HEAD,
    noDelay: true,
    // The runtime is the only client: it keeps connections and decides how long a call may take.
    keepAliveTimeout: 0,
    requestTimeout: 0,
    headersTimeout: 0,
    connectionsCheckingInterval: 0x7fffffff,
  };
  const server = http.createServer(options, answer);
  server.on('error', (error) => {
    print(error);
    process.exit(1);
  });
  const path = process.env.TINYFAAS_SOCKET;
  if (path) {
    fs.rmSync(path, { force: true });
    server.listen({ path, backlog: BACKLOG, readableAll: true, writableAll: true }, () => fs.chmodSync(path, 0o666));
  } else {
    // Without a host node listens on [::] for both families, and on 0.0.0.0 where there is no IPv6.
    server.listen({ port: PORT, backlog: BACKLOG });
  }
}

// A stray callback or promise of the function: told, and the handler lives on.
// The first process of a container gets no default action for a signal; any other leaves it to the kernel, which is at once.
if (process.pid === 1) process.on('SIGTERM', () => process.exit(0));

if (!Number.isInteger(limit) || limit < 1) {
  console.error('TINYFAAS_CONCURRENCY is a number above 0');
  process.exit(1);
}
load().then(
  (found) => {
    fn = found;
    process.on('uncaughtException', print);
    process.on('unhandledRejection', print);
    listen();
  },
  (error) => {
    print(error);
    process.exit(1);
  },
);
