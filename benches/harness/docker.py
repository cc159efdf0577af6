"""The Docker engine's API, bare: what a deployment costs without anything of ours."""
import http.client, json, os, socket


class Connection(http.client.HTTPConnection):
    """A connection to the engine of this machine."""

    def __init__(self):
        super().__init__("docker", timeout=300)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://"))


class Docker:
    """Requests to the engine on one connection that is kept."""

    def __init__(self):
        self.connection = Connection()

    def ask(self, method, path, value=None, bytes=None):
        """The answer's body; what is refused ends the bench."""
        body = json.dumps(value) if bytes is None and value is not None else bytes
        kind = "application/x-tar" if bytes is not None else "application/json"
        self.connection.request(method, path, body, {"content-type": kind} if body else {})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise SystemExit(f"the engine refuses {method} {path}: {answer.status} {text.decode()}")
        return text

    def json(self, method, path, value=None):
        return json.loads(self.ask(method, path, value))
