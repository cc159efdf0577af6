"""Servers under test, each a process of its own so that its memory and processor time can be told; and ours in
particular."""
import base64, http.client, io, json, os, pathlib, re, shutil, signal, socket, subprocess, sys, tempfile, threading
import time, types, zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# Longest that anything is waited for, in seconds.
PATIENCE = 60
# What was started is stopped then as well.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def release():
    """The program that is measured: TINYFAAS_RELEASE_BIN, else this machine's release build, which is made."""
    if named := os.environ.get("TINYFAAS_RELEASE_BIN"):
        return os.path.abspath(named)
    subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT, check=True)
    metadata = subprocess.check_output(["cargo", "metadata", "--format-version", "1", "--no-deps"], cwd=ROOT)
    # Where a target is set in cargo's configuration, its name is in the path.
    target = pathlib.Path(json.loads(metadata)["target_directory"])
    return str(max(target.glob("**/release/tinyfaas"), key=os.path.getmtime))


# The same function in each language: it gives back what it is sent.
ECHO = {
    "python3": {"fn.py": "def fn(input):\n    return input\n"},
    "nodejs": {"index.js": "module.exports = (req, res) => res.send(req.body);\n"},
    "binary": {"fn.sh": "exec cat\n"},
}


class Folder:
    """A folder that goes at the end. Its path is short: paths of unix sockets come out of it."""

    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix="tf-")
        os.chmod(self.path, 0o755)
        return self.path

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)


class Server:
    """A process; ended with the block that it is used in."""

    def __init__(self, args, **options):
        self.child = subprocess.Popen(args, stdin=subprocess.DEVNULL, **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self, signal_number=signal.SIGTERM):
        if self.child.poll() is None:
            self.child.send_signal(signal_number)
            try:
                self.child.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()

    def cpu(self):
        """Seconds of processor time used so far, with what it started."""
        return sum(map(cpu, tree(self.child.pid)))

    def memory(self):
        """Resident and anonymous memory in kB, with what it started."""
        return tuple(map(sum, zip(*map(memory, tree(self.child.pid)))))

    def wait_for(self, what, check):
        """Waits until `check` gives something."""
        return wait_for(what, lambda: check() or self.is_alive(what))

    def is_alive(self, what):
        if self.child.poll() is not None:
            raise SystemExit(f"{self.child.args[0]} ended ({self.child.returncode}) before {what}")


class Process(Server):
    """A process that another one started."""

    def __init__(self, pid):
        self.child = types.SimpleNamespace(pid=pid)


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def tree(pid):
    """A process and all that it started and that still run."""
    return [pid, *(each for child in children(pid) for each in tree(child))]


def cpu(pid):
    """Seconds of processor time that a process used so far, with its children that ended."""
    with open(f"/proc/{pid}/stat") as file:
        user, system, *ended = map(int, file.read().rsplit(")", 1)[1].split()[11:15])
    tick = os.sysconf("SC_CLK_TCK")
    # In nanoseconds where `stat` has 100ths, which alone has the threads that ended.
    running = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat") as file:
            running += int(file.read().split()[0])
    return max(running / 1e9, (user + system) / tick) + sum(ended) / tick


def memory(pid):
    """Resident and anonymous memory of a process in kB. The kernel counts pages here; the numbers of `status` may be
    some off."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        fields = dict(re.findall(r"^(\w+):\s+(\d+) kB", file.read(), re.M))
    return int(fields["Rss"]), int(fields["Anonymous"])


def wait_for(what, check):
    """Waits until `check` gives something."""
    end = time.monotonic() + PATIENCE
    while not (found := check()):
        if time.monotonic() > end:
            raise SystemExit(f"waited in vain for {what}")
        time.sleep(0.002)
    return found


def listens(address):
    """Whether somebody listens there: (host, port), or the path of a unix socket."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as sock:
        return sock.connect_ex(address) == 0


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Tinyfaas(Server):
    """Our program with every door open, on a state directory in `folder`; `before` are words that come before the
    program's."""

    def __init__(self, binary, folder, flags=(), before=(), doors=("management", "http", "coap", "grpc")):
        args = [*before, binary, "serve", "--state-dir", f"{folder}/state"]
        for door in doors:
            args += [f"--{door}", "127.0.0.1:0"]
        self.folder, self.ports, self.log = folder, {}, []
        super().__init__([*args, *flags], stderr=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        try:
            # Management opens last.
            self.wait_for("its ports were open", lambda: "management" in self.ports)
        except SystemExit as e:
            self.stop()
            raise SystemExit(f"{e}:\n{''.join(self.log)}") from e

    def _read(self):
        for line in self.child.stderr:
            self.log.append(line)
            if found := re.search(r"(\w+) listens on .*:(\d+)", line):
                self.ports[found[1]] = int(found[2])

    def manage(self, path, value):
        """Asks the management API with a value, or with bytes as they are."""
        body = value if isinstance(value, bytes) else json.dumps(value)
        conn = http.client.HTTPConnection("127.0.0.1", self.ports["management"], timeout=300)
        conn.request("POST", path, body)
        answer = conn.getresponse()
        text = answer.read().decode()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {text}\n{''.join(self.log)}")

    def deploy(self, name, env, files, threads=1):
        self.manage("/upload", upload(name, env, files, threads))


def upload(name, env, files, threads=1):
    """What /upload is told of files, which are text or bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file, content in files.items():
            archive.writestr(file, content)
    zip64 = base64.b64encode(packed.getvalue()).decode()
    return {"name": name, "env": env, "threads": threads, "zip": zip64, "envs": []}
