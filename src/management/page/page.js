'use strict';
const $ = id => document.getElementById(id);
// Milliseconds from one look at the server to the next, and how many of them numbers are made of.
const PERIOD = 2000, LOOKS = 8;
// What is shown of an answer in bytes, and of a log in lines.
const SHOWN = 65536, LINES = 300;
const encoder = new TextEncoder();

let token = sessionStorage.getItem('tinyfaas-token') || '';
let known = new Map(), looks = [], rates = [], opened = null, failures = -1, errors = [], errorsAt = 0;
let timer = 0, looking = null;

class Refused extends Error {
  constructor(status, text) { super(text.trim() || 'status ' + status); this.status = status; }
}

// All that the server is asked goes this way; what it refuses is an Error with its line.
async function ask(path, options = {}) {
  const headers = new Headers(options.headers), used = token;
  if (token) headers.set('authorization', 'Bearer ' + token);
  let answer;
  try {
    answer = await fetch(path, { ...options, headers, redirect: 'error', cache: 'no-store' });
  } catch (e) {
    throw e.name === 'AbortError' ? e : new Error('the connection broke off, or the server cannot be reached');
  }
  if (answer.ok) return answer;
  const refused = new Refused(answer.status, await answer.text());
  // Another token may have been given meanwhile.
  if (answer.status === 401 && used === token) wantToken();
  throw refused;
}

function say(place, text, how = '') {
  place.className = 'said ' + how;
  place.textContent = text;
}

function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function element(name, text = '', how = '') {
  const node = document.createElement(name);
  node.textContent = text;
  if (how) node.className = how;
  return node;
}

const bytes = n => n == null ? '–' : n < 1024 ? n + ' B' : n < 1024 * 1024 ? (n / 1024).toFixed(0) + ' KiB' : (n / 1024 / 1024).toFixed(1) + ' MiB';
const number = n => n == null ? '–' : n > 0 && n < 10 ? n.toFixed(1) : n.toFixed(0);
const time = s => s == null ? '–' : s > 10 ? '> 10 s' : s >= 1 ? s.toFixed(1) + ' s' : s >= .01 ? (s * 1000).toFixed(0) + ' ms' : (s * 1000).toFixed(1) + ' ms';
function age(s) {
  for (const [unit, size] of [['d', 86400], ['h', 3600], ['min', 60]]) if (s >= size) return Math.floor(s / size) + ' ' + unit;
  return Math.floor(s) + ' s';
}

// The few names of /metrics that are needed here.
function parse(text) {
  const look = { at: performance.now(), of: new Map(), memory: new Map(), failed: 0, own: null };
  for (const line of text.split('\n')) {
    const found = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!found) continue;
    const [, name, inside = '', value] = found;
    const labels = Object.fromEntries([...inside.matchAll(/(\w+)="([^"]*)"/g)].map(m => [m[1], m[2]]));
    const n = Number(value);
    if (name === 'http_request_duration_seconds_bucket') {
      const sum = look.of.get(labels.function) || new Map();
      const bound = labels.le === '+Inf' ? Infinity : Number(labels.le);
      sum.set(bound, (sum.get(bound) || 0) + n);
      look.of.set(labels.function, sum);
    } else if (name === 'http_requests_total' && labels.code === '5xx') look.failed += n;
    else if (name === 'tinyfaas_handler_memory_bytes') look.memory.set(labels.function, (look.memory.get(labels.function) || 0) + n);
    else if (name === 'process_resident_memory_bytes') look.own = n;
    else if (name === 'tinyfaas_uptime_seconds') look.up = n;
    else if (name === 'tinyfaas_build_info') look.build = labels;
  }
  return look;
}

// How often and how long a function was called between the oldest look and the newest one.
function between(name) {
  const first = looks[0], last = looks[looks.length - 1];
  if (looks.length < 2) return null;
  const counts = new Map();
  for (const key of name == null ? last.of.keys() : [name]) {
    const now = last.of.get(key) || new Map(), before = first.of.get(key) || new Map();
    // One that was deleted in between began anew.
    const anew = (now.get(Infinity) || 0) < (before.get(Infinity) || 0);
    let below = 0;
    for (const [bound, n] of [...now].sort((a, b) => a[0] - b[0])) {
      const all = n - (anew ? 0 : before.get(bound) || 0);
      counts.set(bound, (counts.get(bound) || 0) + all - below);
      below = all;
    }
  }
  let total = 0;
  for (const n of counts.values()) total += n;
  return { rate: total / (last.at - first.at) * 1000, p50: quantile(.5, counts, total), p99: quantile(.99, counts, total) };
}

// As Prometheus estimates it: calls are spread evenly between the bounds of their bucket.
function quantile(q, counts, total) {
  if (!total) return null;
  let rank = q * total, low = 0;
  for (const [bound, n] of [...counts].sort((a, b) => a[0] - b[0])) {
    if (rank <= n && n > 0) return bound === Infinity ? Infinity : low + (bound - low) * rank / n;
    rank -= n;
    low = bound;
  }
  return low;
}

async function look() {
  clearTimeout(timer);
  looking?.abort();
  if (document.hidden) return;
  const mine = looking = new AbortController(), begun = performance.now(), signal = mine.signal;
  try {
    // One after the other: a wrong token is counted once, and one connection does.
    const now = parse(await (await ask('metrics', { signal })).text());
    const functions = await (await ask('functions', { signal })).json();
    looks = [...looks, now].slice(-LOOKS - 1);
    known = new Map(functions.map(f => [f.name, f]));
    if (now.failed !== failures) {
      errors = await ask('errors', { signal }).then(a => a.json());
      failures = now.failed;
      errorsAt = performance.now();
    }
    linked('live', 'good');
    trouble('');
    show();
  } catch (e) {
    if (e.name === 'AbortError' || mine !== looking) return;
    if (e.status === 401) return;
    linked('not connected', 'bad');
    trouble(`${e.message} (trying again)`);
  }
  // A board that takes long to answer is asked less often.
  timer = setTimeout(look, Math.max(PERIOD, 10 * (performance.now() - begun)));
}

function linked(text, how) {
  set($('linked'), text);
  $('dot').className = how;
}

function trouble(text) {
  $('trouble').hidden = !text;
  set($('trouble'), text);
}

function show() {
  const now = looks[looks.length - 1], all = between(null);
  const handlers = [...known.values()].flatMap(f => f.handlers);
  const { version, backend, arch } = now.build || {};
  set($('about'), `${location.hostname} · ${version}, ${backend}, ${arch} · up ${age(now.up)}`);
  document.title = `${location.hostname} · tinyFaaS`;
  set($('functions'), String(known.size));
  const are = state => handlers.filter(h => h.state === state).length, idle = are('idle');
  set($('up'), `${are('healthy')} of ${handlers.length} handlers up${idle ? `, ${idle} idle` : ''}`);
  set($('rate'), number(all?.rate));
  set($('took'), all && all.p50 != null ? `${time(all.p50)} / ${time(all.p99)}` : '–');
  let sum = 0;
  for (const n of now.memory.values()) sum += n;
  set($('memory'), bytes((now.own || 0) + sum));
  set($('resident'), `server ${bytes(now.own)}, handlers ${bytes(sum)}`);
  sparkle(all?.rate);
  rows(now);
  runtimes();
  listErrors();
  if (opened) facts(known.get(opened));
  // It broke off, or too many are followed already.
  if (opened && !following) logs();
}

function sparkle(rate) {
  if (rate == null) return;
  rates = [...rates, rate].slice(-60);
  const top = Math.max(1, ...rates);
  const points = rates.map((r, i) => `${60 - rates.length + i + .5},${(15 - 14 * r / top).toFixed(1)}`);
  $('spark').firstElementChild.setAttribute('points', points.join(' '));
}

const HOW = { healthy: 'good', idle: '', 'backing off': 'bad' };

function row(name) {
  const tr = element('tr'), head = element('th'), open = element('button', name, 'open');
  tr.id = 'f-' + name;
  head.scope = 'row';
  open.type = 'button';
  open.setAttribute('aria-expanded', 'false');
  open.addEventListener('click', () => toggle(opened === name ? null : name));
  const state = element('small');
  state.append(element('span', '', 'mark'), element('span'));
  head.append(open, state);
  tr.append(head, ...['n wide', 'n', 'n wide', 'n', 'n wide'].map(how => element('td', '', how)));
  return tr;
}

function rows(now) {
  const table = $('rows');
  for (const tr of [...table.children]) if (tr.id.startsWith('f-') && !known.has(tr.id.slice(2))) {
    if (opened === tr.id.slice(2)) toggle(null);
    tr.remove();
  }
  let before = null;
  for (const [name, f] of known) {
    const tr = $('f-' + name) || row(name), numbers = between(name), memory = now.memory.get(name);
    if (!tr.isConnected) before ? before.after(tr) : table.prepend(tr);
    before = tr.nextElementSibling?.className === 'detail' ? tr.nextElementSibling : tr;
    const state = tr.querySelector('small'), cells = tr.querySelectorAll('td');
    state.className = f.state in HOW ? HOW[f.state] : 'doubt';
    set(state.lastChild, `${f.state} · ${f.env}`);
    const up = f.handlers.filter(h => h.state === 'healthy').length;
    [up === f.threads ? String(up) : `${up} of ${f.threads}`, number(numbers?.rate), time(numbers?.p50), time(numbers?.p99), bytes(memory)]
      .forEach((text, i) => set(cells[i], text));
  }
  $('table').hidden = !known.size;
  $('none').hidden = known.size > 0;
}

// Those that every server has, and what is in use here: an operator may have added some.
function runtimes() {
  const names = [...new Set(['python3', 'nodejs', 'binary', 'go', ...[...known.values()].filter(f => !f.image).map(f => f.env)])].sort();
  if ($('envs').children.length !== names.length) $('envs').replaceChildren(...names.map(name => element('option', name)));
}

function listErrors() {
  const passed = (performance.now() - errorsAt) / 1000;
  $('well').hidden = errors.length > 0;
  $('errors').replaceChildren(...errors.map(e => {
    const item = element('li'), line = element('p'), times = e.times > 1 ? ` · ${e.times} times` : '';
    line.append(element('b', e.function), ` ${e.status} · ${e.protocol} · ${age(e.seconds_ago + passed)} ago${times}`);
    item.append(line, element('p', e.text, 'quiet'), element('small', 'call ' + e.call));
    return item;
  }));
}

// One function's panel, below its row.
function toggle(name) {
  const panel = $('panel');
  if (opened) $('f-' + opened)?.querySelector('.open').setAttribute('aria-expanded', 'false');
  if (panel.closest('.detail')) {
    const old = panel.closest('.detail');
    $('main').after(panel);
    old.remove();
  }
  opened = name;
  panel.hidden = !name;
  stopCall();
  following?.abort();
  if (!name) return;
  const tr = element('tr', '', 'detail'), td = element('td');
  td.colSpan = 6;
  td.append(panel);
  tr.append(td);
  const own = $('f-' + name);
  own.after(tr);
  own.querySelector('.open').setAttribute('aria-expanded', 'true');
  set($('title'), name);
  for (const id of ['body', 'path', 'auth']) $(id).value = '';
  for (const id of ['answer', 'log']) { $(id).hidden = true; $(id).textContent = ''; }
  for (const id of ['status', 'lines']) say($(id), '');
  facts(known.get(name));
  logs();
}

function facts(f) {
  if (!f) return;
  $('secret').hidden = !f.auth;
  const l = f.limits, some = (text, none) => text === '0' ? none : text;
  const handlers = f.handlers.map(h => {
    const restarts = h.restarts ? `, started again ${h.restarts} times: ${h.reason || ''}` : '';
    return `${h.id || 'none'}: ${h.state}, ${h.in_flight} calls${restarts}`;
  });
  const list = [
    ['State', `${f.state}, ${f.calls} calls, ${f.in_flight} under way, ${f.waiting} waiting`],
    ['Handlers', handlers.join('\n')],
    ['Limits', `memory ${some(l.memory, 'unbounded')}, cpu ${some(l.cpu, 'unbounded')}, ${l.pids} processes, ${l.timeout}, ${l.concurrency} calls each, ${l.queue} waiting`],
    ['When idle', f.idle ? `stopped after ${f.idle}` : 'kept'],
    ['Network', f.network ? 'yes' : 'no'],
    ['Tokens', f.auth ? `${f.auth}, one of which a call needs` : 'not needed'],
    ['Environment', f.envs.join(', ') || 'none'],
    ['Version', (f.image ? f.image + ', ' : '') + f.digest.slice(0, 12)]];
  const place = $('facts');
  if (!place.children.length) place.append(...list.flatMap(([term]) => [element('dt', term), element('dd')]));
  list.forEach(([, text], i) => set(place.children[2 * i + 1], text));
}
