"""A Docker engine that is a script: it knows the requests that tinyfaas makes, and its containers are sockets that
listen already.

So the program that is shipped can be measured by its front doors with a handler that is the same for all who are
compared, and neither an engine nor a runtime is part of what is measured.
"""
import http.server, json, os, re, socketserver, threading, urllib.parse


class Engine:
    """Listens at `folder`/docker.sock. The socket of a container of the function NAME leads to the one at
    `handlers[NAME]`."""

    def __init__(self, folder, handlers):
        self.host = f"unix://{folder}/docker.sock"
        self.containers = {}
        self.handlers = handlers
        # How tinyfaas finds it, and takes its containers as they are.
        self.flags = ["--backend", "docker", "--docker-host", self.host, "--network", "none"]
        for env in ("python3", "nodejs", "binary"):
            self.flags += ["--runtime-image", f"{env}=scripted"]
        self.stopping = threading.Event()
        engine = self

        class Requests(_Requests):
            pass

        Requests.engine = engine
        self.server = _Server(f"{folder}/docker.sock", Requests)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def start(self, name):
        """Where the container's folder is mounted from, its socket is found."""
        body = self.containers[name]
        for mount in body["HostConfig"].get("Mounts") or []:
            os.symlink(self.handlers[body["Labels"]["tinyfaas-function"]], mount["Source"] + "/fn.sock")

    def stop(self):
        self.stopping.set()
        self.server.shutdown()
        self.server.server_close()

    def summary(self, name):
        body = self.containers[name]
        mounts = [{"Type": "bind", "Destination": m["Target"]} for m in body["HostConfig"].get("Mounts") or []]
        return {"Id": name, "Names": ["/" + name], "Labels": body["Labels"], "State": "running", "Mounts": mounts}


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def handle_error(self, *_):
        """The server under test ends with connections open."""


class _Requests(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    engine = None

    def answer(self, status, value=None):
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        if status != 204:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def route(self):
        body = self.body()
        url = urllib.parse.urlsplit(self.path)
        path = re.sub(r"^/v[\d.]+", "", url.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        containers = self.engine.containers
        name = path.split("/")[2] if path.count("/") >= 2 else ""
        match self.command, path.removeprefix("/").split("/"):
            case "GET", ["version"]:
                self.answer(200, {"ApiVersion": "1.41", "Version": "0", "Os": "linux"})
            case "GET", ["events"]:
                self.send_response(200)
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                self.engine.stopping.wait()
            case "GET", ["containers", "json"]:
                wanted = json.loads(query.get("filters", "{}")).get("name", [""])[0]
                self.answer(200, [self.engine.summary(n) for n in containers if re.search(wanted, "/" + n)])
            case "POST", ["containers", "create"]:
                containers[query["name"]] = json.loads(body)
                self.answer(201, {"Id": query["name"], "Warnings": []})
            case _, ["containers", *_] if name not in containers:
                self.answer(404, {"message": "no such container"})
            case "GET", ["containers", _, "json"]:
                self.answer(200, {"Id": name, "State": {"Running": True}})
            case "PUT", ["containers", _, "archive"]:
                self.answer(200)
            case "POST", ["containers", _, "start"]:
                self.engine.start(name)
                self.answer(204)
            case "POST", ["containers", _, "stop"]:
                self.answer(204)
            case "DELETE", ["containers", _]:
                del containers[name]
                self.answer(204)
            case "GET", ["images", "json"] | ["networks"]:
                self.answer(200, [])
            case "GET", ["images", *_]:
                self.answer(200, {"Id": "scripted"})
            case _:
                self.answer(404, {"message": "the scripted engine has none"})

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = route

    def address_string(self):
        return "tinyfaas"

    def log_message(self, *_):
        pass
