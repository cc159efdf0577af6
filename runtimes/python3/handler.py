# Runs the function fn(input) or fn(input, headers) of fn.py: HTTP/1.1 on the unix socket TINYFAAS_SOCKET, else on TCP 8000.
#
# RAM decides what is imported: built-in modules only, so that an idle handler costs little more than the interpreter.
# For the same reason it is started with -S; a module that is not found makes `site` load after all (see LateSite).
#
# Threads share one epoll set. Whoever gets an event serves that request and comes back: no thread belongs to a connection,
# so idle connections cost no thread and none starves. A thread is added when all are busy, up to TINYFAAS_CONCURRENCY.

import sys
import posix
import select
import _signal
import _socket
import _thread
import time

PORT = 8000
BACKLOG = 4096
# Longest request head in bytes: the front doors' bound of 16 KiB, and room for the fields that the runtime adds.
MAX_HEAD = 20 * 1024
# Longest line of a chunk's size, and all trailer fields together, in bytes.
MAX_OVERHEAD = 4096
# Bytes asked from the socket at once.
PIECE = 16 * 1024
# A body up to this size in bytes is sent in one write with its head; a longer one is not copied for that.
SMALL = 64 * 1024
# Stack of a thread in bytes: enough for the interpreter's recursion limit; only what is used takes memory.
STACK = 4 * 1024 * 1024

TOKEN = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
HEX = "0123456789abcdefABCDEF"
# Fields of a reply that are ours to write.
FRAMING = ("connection", "content-length", "keep-alive", "transfer-encoding", "trailer", "upgrade")
REASONS = {200: "OK", 201: "Created", 204: "No Content", 400: "Bad Request", 404: "Not Found",
           405: "Method Not Allowed", 431: "Request Header Fields Too Large", 500: "Internal Server Error"}


class Headers(dict):
    """The request's header fields, named as they came; looking one up does not mind the case."""

    __slots__ = ()

    def _find(self, name):
        if isinstance(name, str):
            name = name.lower()
            for key in self:
                if key.lower() == name:
                    return key
        return None

    def __missing__(self, name):
        key = self._find(name)
        if key is None:
            raise KeyError(name)
        return dict.__getitem__(self, key)

    def __contains__(self, name):
        return dict.__contains__(self, name) or self._find(name) is not None

    def get(self, name, default=None):
        return self[name] if name in self else default


class Refused(Exception):
    """A request that cannot be read: the status, the line of text to answer, and then the connection is closed."""


class Gone(Exception):
    """The peer closed the connection."""


class LateSite:
    """Last of the module finders: what is not found without site-packages is looked for with them."""

    # Threads that miss a module at the same time wait for the first one to load site. Not forever: what site loads may wait for theirs.
    lock = _thread.RLock()
    PATIENCE = 5  # seconds
    state = "absent"

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        locked = cls.lock.acquire(timeout=cls.PATIENCE)
        try:
            if cls.state == "absent":
                cls.state = "loading"
                import site
                site.main()
                sys.meta_path.remove(cls)
                cls.state = "loaded"
        finally:
            if locked:
                cls.lock.release()
        if path is not None or cls.state == "loading":
            return None
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                return spec
        return None


class Connection:
    __slots__ = ("sock", "buf")

    def __init__(self, sock):
        self.sock = sock
        self.buf = b""

    def fill(self):
        data = self.sock.recv(PIECE)
        if not data:
            raise Gone
        self.buf += data

    def line(self):
        """The next line of a chunked body, without its end."""
        while True:
            at = self.buf.find(b"\r\n")
            if at >= 0:
                line, self.buf = self.buf[:at], self.buf[at + 2:]
                return line
            if len(self.buf) > MAX_OVERHEAD:
                raise Refused(400, "a line of the chunked body is too long")
            self.fill()

    def read_into(self, body, length):
        take = self.buf[:length]
        body += take
        self.buf = self.buf[len(take):]
        length -= len(take)
        while length:
            data = self.sock.recv(min(length, SMALL))
            if not data:
                raise Gone
            body += data
            length -= len(data)

    def read_chunks(self, body):
        while True:
            size = self.line().decode("latin-1").partition(";")[0]
            if not 0 < len(size) <= 15 or size.strip(HEX):
                raise Refused(400, "the size of a chunk is a hexadecimal number")
            size = int(size, 16)
            if size == 0:
                break
            self.read_into(body, size)
            end = bytearray()
            self.read_into(end, 2)
            if end != b"\r\n":
                raise Refused(400, "a chunk ends with CR LF")
        overhead = 0
        while True:
            trailer = self.line()
            if not trailer:
                return
            overhead += len(trailer)
            if overhead > MAX_OVERHEAD:
                raise Refused(400, "the trailer fields are too long")

    def request(self):
        """Reads one request: method, path, headers, body, and whether the connection stays open."""
        while True:
            # An empty line before a request is passed over, RFC 9112 section 2.2.
            while self.buf.startswith(b"\r\n"):
                self.buf = self.buf[2:]
            at = self.buf.find(b"\r\n\r\n")
            if at >= 0 or len(self.buf) > MAX_HEAD:
                break
            self.fill()
        if not 0 <= at <= MAX_HEAD:
            raise Refused(431, "the head of a request is at most %d bytes" % MAX_HEAD)
        head, self.buf = self.buf[:at], self.buf[at + 4:]
        method, path, version, headers, length, options = parse_head(head)
        keep = "close" not in options and (version == "HTTP/1.1" or "keep-alive" in options)
        if headers.get("expect", "").lower() == "100-continue" and not self.buf:
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = bytearray()
        if length is None:
            self.read_chunks(body)
        elif length:
            self.read_into(body, length)
        return method, path, headers, body, keep

    def reply(self, status, fields, body, keep):
        head = ["HTTP/1.1 %d %s\r\n" % (status, REASONS.get(status, ""))]
        for name, value in fields:
            head.append("%s: %s\r\n" % (name, value))
        if status == 204 or status == 304:
            body = b""
        else:
            head.append("content-length: %d\r\n" % len(body))
        head.append("\r\n" if keep else "connection: close\r\n\r\n")
        head = "".join(head).encode("latin-1")
        if len(body) <= SMALL:
            self.sock.sendall(head + body)
            return
        sent = self.sock.sendmsg((head, body)) - len(head)
        if sent < 0:
            self.sock.sendall(head[sent:])
            sent = 0
        with memoryview(body) as view:
            self.sock.sendall(view[sent:])


def parse_head(head):
    text = head.decode("latin-1")
    lines = text.split("\r\n")
    if text.count("\r") != len(lines) - 1 or text.count("\n") != len(lines) - 1 or "\0" in text:
        raise Refused(400, "lines of a head end with CR LF and hold neither alone")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[0] or words[0].strip(TOKEN) or not words[1].startswith("/"):
        raise Refused(400, "the request line needs a method, a path and a version")
    method, path, version = words
    if version != "HTTP/1.1" and version != "HTTP/1.0":
        raise Refused(400, "this port speaks HTTP/1.1")
    headers, length, chunked, options = Headers(), None, False, []
    for i in range(1, len(lines)):
        name, colon, value = lines[i].partition(":")
        if not colon or not name or name.strip(TOKEN):
            raise Refused(400, "a header field is a name of token characters, a colon and a value")
        value = value.strip(" \t")
        low = name.lower()
        if low == "content-length":
            if length is not None or not value.isdecimal() or len(value) > 15:
                raise Refused(400, "Content-Length is one decimal number")
            length = int(value)
        elif low == "transfer-encoding":
            if chunked or value.lower() != "chunked" or version != "HTTP/1.1":
                raise Refused(400, "the only transfer coding known here is chunked")
            chunked = True
        elif low == "connection":
            options += [option.strip() for option in value.lower().split(",")]
        key = headers._find(name)
        if key is None:
            headers[name] = value
        else:
            # RFC 9110 section 5.3; cookies are joined as RFC 6265 has them.
            headers[key] = dict.__getitem__(headers, key) + ("; " if low == "cookie" else ", ") + value
    if chunked and length is not None:
        raise Refused(400, "Content-Length and Transfer-Encoding exclude each other")
    return method, path, version, headers, None if chunked else length or 0, options


def takes_headers(fn):
    """Whether fn takes a second argument. Reads the code object: `inspect` costs over a megabyte."""
    while hasattr(fn, "__wrapped__"):
        fn = fn.__wrapped__
    bound = 0
    code = getattr(fn, "__code__", None)
    if code is None:
        call = fn if hasattr(fn, "__func__") else getattr(type(fn), "__call__", None)
        code = getattr(getattr(call, "__func__", call), "__code__", None)
        bound = 1
    elif hasattr(fn, "__self__"):
        bound = 1
    if code is None:
        import inspect
        try:
            inspect.signature(fn).bind(None, None)
            return True
        except TypeError:
            return False
    CO_VARARGS = 4
    return bool(code.co_flags & CO_VARARGS) or code.co_argcount - bound >= 2


def load():
    """Imports the function; returns it as something that takes input and headers."""
    folder = posix.environ.get(b"TINYFAAS_FUNCTION_DIR", b"/fn").decode("utf-8", "surrogateescape")
    deps = folder + "/.deps"
    # The first entry is the folder of this file: its name must not shadow a module of the function.
    sys.path[0:1] = [folder, deps]
    sys.meta_path.append(LateSite)
    posix.chdir(folder)
    try:
        names = posix.listdir(deps)
    except OSError:
        names = []
    if any(name.endswith(".pth") for name in names):
        import site
        site.addsitedir(deps)
    import fn as module
    fn = getattr(module, "fn", None)
    if not callable(fn):
        raise TypeError("fn.py has no function fn: write def fn(input) or def fn(input, headers)")
    return fn if takes_headers(fn) else lambda body, headers: fn(body)


def to_reply(result):
    """Status, fields and body bytes of what the function returned."""
    status, extra = 200, None
    if isinstance(result, tuple):
        if not 2 <= len(result) <= 3:
            raise TypeError("fn returned a tuple of %d: return (body, status) or (body, status, headers)" % len(result))
        if len(result) == 3:
            extra = result[2]
        result, status = result[:2]
        if not isinstance(status, int) or not 200 <= status <= 599:
            raise ValueError("fn returned the status %r: return a number from 200 to 599" % (status,))
    kind = "text/plain; charset=utf-8"
    if result is None:
        body = b""
    elif isinstance(result, str):
        body = result.encode("utf-8", "surrogateescape")
    elif isinstance(result, (bytes, bytearray, memoryview)):
        body, kind = bytes(result), "application/octet-stream"
    else:
        raise TypeError("fn returned %s: return str, bytes, None or a tuple (body, status, headers)" % type(result).__name__)
    fields = []
    for name, value in (extra.items() if hasattr(extra, "items") else extra or ()):
        value = str(value).strip(" \t")
        if not isinstance(name, str) or not name or name.strip(TOKEN) or any(c < " " and c != "\t" or c == "\x7f" for c in value):
            raise ValueError("fn returned a bad header %r: a name of token characters, a value without control characters" % (name,))
        value.encode("latin-1")
        if name.lower() == "content-type":
            kind = None
        if name.lower() not in FRAMING:
            fields.append((name, value))
    if kind and body:
        fields.append(("content-type", kind))
    return status, fields, body


def message(error):
    text = str(error)
    name = type(error).__name__
    return (name + ": " + text if text else name).encode("utf-8", "backslashreplace")


PLAIN = [("content-type", "text/plain; charset=utf-8")]


def invoke(fn, headers, body):
    try:
        text = str(body, "utf-8", "surrogateescape") if body else None
        # The bytes go before the function runs: it may need the room.
        body.clear()
        return to_reply(fn(text, headers))
    except BaseException as error:  # sys.exit() in a function is its error too
        try:
            sys.stderr.write("call %s failed:\n" % headers.get("x-call-id", "without an id"))
            # Without our own frame on top.
            sys.excepthook(type(error), error, error.__traceback__.tb_next or error.__traceback__)
            return 500, PLAIN, message(error)
        except BaseException:
            return 500, PLAIN, b"the function failed, and so did telling why"


def serve(fn, connection):
    """Serves the requests that are there; returns whether the connection stays open."""
    try:
        while True:
            method, path, headers, body, keep = connection.request()
            path = path.partition("?")[0]
            if path == "/fn" and method == "POST":
                connection.reply(*invoke(fn, headers, body), keep)
            elif path == "/health" and method == "GET":
                connection.reply(200, PLAIN, b"ok\n", keep)
            elif path == "/fn" or path == "/health":
                connection.reply(405, PLAIN, b"use GET /health or POST /fn\n", keep)
            else:
                connection.reply(404, PLAIN, b"there is only /health and /fn\n", keep)
            if not keep:
                return False
            if not connection.buf:
                return True
    except Refused as refused:
        status, text = refused.args
        connection.reply(status, PLAIN, text.encode() + b"\n", False)
        return False
    except (Gone, OSError):
        return False


def listen():
    path = posix.environ.get(b"TINYFAAS_SOCKET")
    if path:
        try:
            posix.unlink(path)
        except FileNotFoundError:
            pass
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        sock.bind(path)
        posix.chmod(path, 0o666)
    else:
        try:
            sock = _socket.socket(_socket.AF_INET6, _socket.SOCK_STREAM)
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            sock.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 0)
            sock.bind(("::", PORT))
        except OSError:
            sock = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            sock.bind(("0.0.0.0", PORT))
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock


class Server:
    def __init__(self, fn, listener, limit):
        self.fn, self.listener, self.limit = fn, listener, limit
        self.poll = select.epoll()
        self.connections = {}
        self.lock = _thread.allocate_lock()
        self.threads = self.waiting = 0
        self.poll.register(listener.fileno(), select.EPOLLIN | select.EPOLLONESHOT)

    def accept(self):
        sock = self.listener
        try:
            while True:
                fd, _ = sock._accept()
                peer = _socket.socket(sock.family, sock.type, sock.proto, fd)
                peer.setblocking(True)
                if sock.family != _socket.AF_UNIX:
                    peer.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
                self.connections[fd] = Connection(peer)
                self.poll.register(fd, select.EPOLLIN | select.EPOLLONESHOT)
        except BlockingIOError:
            pass
        except OSError:
            # No file descriptor left, most likely: others have to close first.
            time.sleep(0.05)
        self.poll.modify(sock.fileno(), select.EPOLLIN | select.EPOLLONESHOT)

    def step(self, fd):
        """Serves what happened on one file descriptor."""
        if fd == self.listener.fileno():
            self.accept()
            return
        with self.lock:
            self.waiting -= 1
            more = self.waiting == 0 and self.threads < self.limit
            if more:
                self.threads += 1
                self.waiting += 1
        if more:
            try:
                _thread.start_new_thread(self.run, ())
            except Exception:
                with self.lock:
                    self.threads -= 1
                    self.waiting -= 1
        try:
            connection = self.connections[fd]
            if serve(self.fn, connection):
                self.poll.modify(fd, select.EPOLLIN | select.EPOLLONESHOT)
            else:
                del self.connections[fd]
                # Closing while bytes are unread resets the connection under the reply: say the end first.
                try:
                    connection.sock.shutdown(_socket.SHUT_WR)
                except OSError:
                    pass
                connection.sock.close()
        finally:
            with self.lock:
                self.waiting += 1

    def run(self):
        while True:
            try:
                for fd, _ in self.poll.poll(-1, 1):
                    self.step(fd)
            except BaseException as error:
                sys.excepthook(type(error), error, error.__traceback__)

    def start(self):
        self.threads = self.waiting = 1
        # A terminal's Ctrl-C ends it, and is no exception in whatever the main thread does.
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
        _thread.stack_size(STACK)
        if posix.getpid() != 1:
            self.run()
        # The first process of a container gets no default action for a signal, and Python runs a signal's handler in
        # this thread alone: so it serves nobody and is always there to end the rest.
        _signal.signal(_signal.SIGTERM, lambda *_: posix._exit(0))
        _thread.start_new_thread(self.run, ())
        while True:
            _signal.pause()


def main():
    sys.stdout.reconfigure(line_buffering=True)
    sys.stderr.reconfigure(line_buffering=True)
    text = posix.environ.get(b"TINYFAAS_CONCURRENCY", b"8")
    limit = int(text) if text.isdigit() and int(text) else sys.exit("TINYFAAS_CONCURRENCY is a number above 0")
    fn = load()
    Server(fn, listen(), limit).start()


main()
