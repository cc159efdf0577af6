let calling = null, following = null, chosen = [];

function stopCall() {
  calling?.abort();
  calling = null;
}

// What the function says comes as message/http (RFC 9112): a status line, fields, and the body as it arrives.
async function call(event) {
  event.preventDefault();
  stopCall();
  $('answer').hidden = true;
  const name = opened, mine = calling = new AbortController(), begun = performance.now();
  const method = $('method').value, body = $('body').value, auth = $('auth').value.trim(), path = $('path').value.trim();
  const base = new URL(`functions/${name}/call`, document.baseURI);
  const url = new URL(base.href + (path && !/^[/?]/.test(path) ? '/' : '') + path.replaceAll('#', '%23'));
  if (!(url.pathname + '/').startsWith(base.pathname + '/')) return say($('status'), 'the path may not lead out of the function', 'bad');
  const headers = { 'x-tinyfaas-method': method, 'content-type': 'text/plain; charset=utf-8' };
  if (auth) headers['x-tinyfaas-authorization'] = 'Bearer ' + auth;
  say($('status'), 'calling …');
  let head = '', size = 0, whole = '';
  const tell = end => {
    const status = /^HTTP\/1\.1 (\d+) ?([^\r\n]*)/.exec(head) || ['', '?', ''];
    const id = /^x-call-id: (\S+)/im.exec(head);
    const text = `${status[1]} ${status[2]} · ${time((performance.now() - begun) / 1000)} · ${bytes(size)}${end}${id ? ' · call ' + id[1] : ''}`;
    say($('status'), text, status[1] < 400 ? 'good' : 'bad');
    $('answer').hidden = false;
  };
  try {
    const sent = method === 'GET' && !body ? undefined : body;
    const answer = await ask(url, { method: 'POST', headers, body: sent, signal: mine.signal });
    const reader = answer.body.getReader(), decoder = new TextDecoder();
    let open = false;
    for (;;) {
      const { done, value } = await reader.read();
      whole += decoder.decode(value, { stream: !done });
      const end = open ? 0 : whole.indexOf('\r\n\r\n') + 4;
      if (!open && end > 3) {
        open = true;
        head = whole.slice(0, end);
        whole = whole.slice(end);
        size -= encoder.encode(head).length;
      }
      size += value?.length || 0;
      if (open) set($('answer'), whole.slice(0, SHOWN));
      if (done) break;
      if (size > SHOWN) {
        await reader.cancel();
        return tell(', and more that is not shown');
      }
    }
    tell('');
  } catch (e) {
    if (e.name !== 'AbortError') say($('status'), (head && size ? 'the answer broke off: ' : '') + e.message, 'bad');
  } finally {
    if (mine === calling) calling = null;
    look();
  }
}

// What the opened function's handlers wrote, and what they write as long as that can be seen.
async function logs() {
  following?.abort();
  following = null;
  if (!opened || document.hidden) return;
  const mine = following = new AbortController(), name = opened, place = $('log');
  let lines = [], rest = '', drawn = 0;
  const draw = () => {
    clearTimeout(drawn);
    drawn = 0;
    if (mine !== following) return;
    const low = place.hidden || place.scrollTop + place.clientHeight + 8 >= place.scrollHeight;
    const several = known.get(name)?.threads > 1;
    const parts = lines.map(line => /^function=\S+ handler=(\S+) (\S+) ([^]*)$/.exec(line) || ['', '', '', line]);
    say($('lines'), lines.length ? '' : 'Nothing was written.');
    place.hidden = !lines.length;
    set(place, parts.map(([, handler, at, what]) =>
      [at.replace(/^.*T|(\.\d+)?Z$/g, ''), several && handler.slice(-4), what].filter(Boolean).join(' ')).join('\n'));
    if (low) place.scrollTop = place.scrollHeight;
  };
  try {
    const answer = await ask(`logs?name=${name}&tail=${LINES}&follow=1`, { signal: mine.signal });
    const reader = answer.body.getReader(), decoder = new TextDecoder();
    drawn = setTimeout(draw, 200);
    for (;;) {
      const { done, value } = await reader.read();
      const parts = (rest + decoder.decode(value, { stream: !done })).split('\n');
      rest = parts.pop().slice(0, SHOWN);
      lines = [...lines, ...parts].slice(-LINES);
      // Not for each line of a function that writes many.
      if (!drawn) drawn = setTimeout(draw, 200);
      if (done) break;
    }
    draw();
  } catch (e) {
    if (e.name !== 'AbortError' && mine === following) say($('lines'), e.message, 'bad');
  } finally {
    if (mine === following) following = null;
  }
}

function sure(question, consequence, word) {
  set($('question'), question);
  set($('consequence'), consequence);
  set($('yes'), word);
  const dialog = $('sure');
  return new Promise(done => {
    $('yes').onclick = () => dialog.close('yes');
    $('no').onclick = () => dialog.close('');
    dialog.onclose = () => done(dialog.returnValue === 'yes');
    dialog.returnValue = '';
    dialog.showModal();
    $('no').focus();
  });
}

async function remove() {
  const name = opened;
  if (!await sure(`Delete ${name}?`, 'Its handlers are stopped and its files removed.', 'Delete')) return;
  try {
    await ask('functions/' + name, { method: 'DELETE' });
    say($('gone'), `${name} was deleted.`, 'good');
    known.delete(name);
    show();
    $('deployed').focus();
  } catch (e) {
    say($('gone'), e.message, 'bad');
  }
  look();
}

// A tar archive (ustar) of files: what the server takes as it is, without a library here.
function tar(files) {
  const parts = [];
  for (const { path, file } of files) {
    const block = new Uint8Array(512), at = path.length > 100 ? path.lastIndexOf('/', 155) : -1;
    const put = (offset, text) => block.set(encoder.encode(text), offset);
    const octal = (offset, width, n) => put(offset, n.toString(8).padStart(width - 1, '0'));
    const [folder, name] = [path.slice(0, Math.max(at, 0)), path.slice(at + 1)];
    if (encoder.encode(name).length > 100 || encoder.encode(folder).length > 155) throw new Error(`the path ${path} is too long: send a zip archive`);
    put(0, name);
    octal(100, 8, 0o755);
    octal(108, 8, 0);
    octal(116, 8, 0);
    octal(124, 12, file.size);
    octal(136, 12, Math.max(0, Math.floor(file.lastModified / 1000)));
    put(148, '        0');
    put(257, 'ustar\u000000');
    put(345, folder);
    octal(148, 7, block.reduce((sum, byte) => sum + byte, 0));
    parts.push(block, file, new Uint8Array((512 - file.size % 512) % 512));
  }
  return new Blob([...parts, new Uint8Array(1024)]);
}

// Files that were dropped, those in folders too.
async function dropped(transfer) {
  const entries = [...transfer.items].map(item => item.webkitGetAsEntry?.()).filter(Boolean);
  const files = [];
  const walk = async (entry, above) => {
    if (entry.isFile) {
      const file = await new Promise((done, failed) => entry.file(done, failed));
      return files.push({ path: above + entry.name, file });
    }
    const reader = entry.createReader();
    for (let some; (some = await new Promise((done, failed) => reader.readEntries(done, failed))).length;) {
      for (const each of some) await walk(each, above + entry.name + '/');
    }
  };
  if (!entries.length) return [...transfer.files].map(file => ({ path: file.name, file }));
  for (const entry of entries) await walk(entry, '');
  return files;
}

const isArchive = files => files.length === 1 && /\.(zip|tar|t?[gx]z)$/i.test(files[0].path);

function choose(files) {
  // The one folder that was dropped is the function.
  const top = files[0]?.path.split('/')[0] + '/';
  const folder = files.length > 0 && files.every(f => f.path.startsWith(top)) ? top : '';
  chosen = files.map(f => ({ ...f, path: f.path.slice(folder.length) }));
  told($('result'), $('told'), '');
  if (!chosen.length) return set($('chosen'), 'fn.py, fn.js, fn.sh, fn.go, or a zip or tar archive of the function');
  const size = chosen.reduce((sum, f) => sum + f.file.size, 0);
  const names = chosen.slice(0, 4).map(f => f.path).join(', ');
  set($('chosen'), `${folder}${names}${chosen.length > 4 ? `, … (${chosen.length} files)` : ''} · ${bytes(size)}`);
  const stem = (folder || (isArchive(chosen) ? chosen[0].path : '')).replace(/\.[A-Za-z]+$/, '').replace(/[^A-Za-z0-9]/g, '');
  if (stem && !$('name').value) $('name').value = stem.slice(0, 63);
  replaces();
}

// What the server said: its first line, and below it the rest, such as the end of a log.
function told(place, below, text, how) {
  const [first, ...rest] = text.trim().split('\n');
  say(place, first, how);
  below.hidden = !rest.length;
  set(below, rest.join('\n'));
  below.scrollTop = below.scrollHeight;
}

function replaces() {
  const old = known.get($('name').value), place = $('replaces');
  place.hidden = !old;
  if (old) set(place, `Takes the place of ${old.name}, with its limits.`);
}

// What the page cannot say again, because the server does not tell it.
function lost(old) {
  const what = [];
  if (old.envs.length) what.push(`its environment variables (${old.envs.join(', ')})`);
  if (old.auth) what.push('its tokens: everybody may call it then');
  return what.join(', and ');
}

async function deploy(event) {
  event.preventDefault();
  const name = $('name').value, old = known.get(name), button = event.target.querySelector('.main'), place = $('result');
  if (!chosen.length) {
    say(place, 'Choose files or an archive first.', 'bad');
    return $('files').focus();
  }
  if (old && lost(old) && !await sure(`Replace ${name}?`, `This page cannot keep ${lost(old)}. tinyfaas deploy can.`, 'Replace')) return;
  const query = new URLSearchParams({ threads: $('threads').value });
  if ($('env').value) query.set('env', $('env').value);
  if (old) {
    for (const [limit, value] of Object.entries(old.limits)) query.set(limit, value);
    query.set('idle', old.idle || 'off');
    if (!old.network) query.set('network', 'false');
  }
  button.disabled = true;
  told(place, $('told'), `deploying ${name} …`);
  let done = false;
  const stage = setInterval(async () => {
    try {
      const { step, log } = await (await ask(`functions/${name}/deployment`)).json();
      if (!done) told(place, $('told'), [`deploying ${name}: ${step} …`, ...log.slice(-8)].join('\n'));
    } catch { /* It has not begun yet, or is over. */ }
  }, 1000);
  try {
    const body = isArchive(chosen) ? chosen[0].file : tar(chosen);
    const answer = await ask(`functions/${name}?${query}`, { method: 'PUT', body });
    const urls = await answer.text();
    done = true;
    event.target.reset();
    choose([]);
    told(place, $('told'), `${name} was deployed.\n${urls}`, 'good');
    say($('gone'), '');
  } catch (e) {
    done = true;
    told(place, $('told'), e instanceof Refused ? e.message : `${e.message}; files that were changed have to be chosen again`, 'bad');
  } finally {
    clearInterval(stage);
    button.disabled = false;
  }
  look();
}

function wantToken() {
  clearTimeout(timer);
  say($('refused'), token ? 'The server does not know that token.' : '', 'bad');
  token = '';
  sessionStorage.removeItem('tinyfaas-token');
  linked('a token is needed', 'bad');
  gate(true);
  $('token').focus();
}

function gate(closed) {
  if (closed) toggle(null);
  $('login').hidden = !closed;
  $('board').hidden = closed;
  $('forget').hidden = !token;
}

$('login').addEventListener('submit', event => {
  event.preventDefault();
  token = $('token').value.trim();
  $('token').value = '';
  // What no field of a header may hold is no token.
  if (!/^[\x21-\x7e]+$/.test(token)) return wantToken();
  sessionStorage.setItem('tinyfaas-token', token);
  gate(false);
  $('main').focus();
  look();
});
$('forget').addEventListener('click', () => {
  token = '';
  known.clear();
  looks = [];
  errors = [];
  wantToken();
});
$('call').addEventListener('submit', call);
$('delete').addEventListener('click', remove);
$('deploy').addEventListener('submit', deploy);
$('name').addEventListener('input', replaces);
$('files').addEventListener('change', () => choose([...$('files').files].map(file => ({ path: file.name, file }))));
// A file that misses the field would else take the page's place.
for (const kind of ['dragover', 'drop']) document.addEventListener(kind, event => event.preventDefault());
document.addEventListener('dragover', () => $('drop').classList.add('over'));
document.addEventListener('dragleave', event => event.relatedTarget || $('drop').classList.remove('over'));
document.addEventListener('drop', async event => {
  $('drop').classList.remove('over');
  if ($('board').hidden || !event.dataTransfer.types.includes('Files')) return;
  try {
    choose(await dropped(event.dataTransfer));
    $($('name').value ? 'threads' : 'name').focus();
  } catch (e) {
    say($('result'), `the files cannot be read: ${e.message}`, 'bad');
  }
});
document.addEventListener('visibilitychange', () => {
  looks = [];
  if (document.hidden) {
    clearTimeout(timer);
    looking?.abort();
    following?.abort();
    linked('paused', '');
  } else if (!$('board').hidden) {
    look();
    logs();
  }
});
choose([]);
gate(false);
look();
