"""A server of a release binary, and what it holds of memory."""
import base64, http.client, io, json, os, re, resource, shutil, signal, subprocess, tempfile, threading, time, zipfile

RUNTIMES = ("python3", "nodejs", "binary")
FIELDS = ("Rss", "Pss", "Private_Dirty", "Anonymous")
# How often memory is looked at while something runs, in seconds.
LOOK = 0.002


def memory(pid):
    """Rss, Pss, Private_Dirty and Anonymous of a process, in kB, and its threads."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        found = dict(re.findall(r"^(\w+):\s+(\d+) kB", file.read(), re.M))
    return {field: int(found[field]) for field in FIELDS} | {"threads": len(os.listdir(f"/proc/{pid}/task"))}


class Server:
    """Runs `binary` with every door open, by `wrapper` if there is one. `connections` may be open at once."""

    def __init__(self, binary, backend="docker", connections=2000, wrapper=()):
        self.binary = binary
        self.top = tempfile.mkdtemp(prefix="tf-")
        # Handlers that are processes are somebody else.
        os.chmod(self.top, 0o711)
        args = [*wrapper, binary, "serve", "--backend", backend, "--state-dir", self.top + "/state"]
        for door in ("management", "http", "coap", "grpc"):
            args += [f"--{door}", "127.0.0.1:0"]
        if backend == "docker":
            for env in RUNTIMES:
                args += ["--runtime-base", f"{env}=tinyfaas-test/{env}"]
        # At the bound, idle connections would be closed for new ones.
        args += ["--max-connections", str(connections), "--head-timeout", "10m", "--idle-timeout", "10m"]
        args += ["--max-functions", "256"]
        as_after_a_boot(binary)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.child = subprocess.Popen(args, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        self.ports = {}
        while "management" not in self.ports:
            line = self.child.stderr.readline()
            if not line:
                raise SystemExit("size-report: the server did not start")
            if found := re.search(r"(\w+) listens on .*:(\d+)", line):
                self.ports[found[1]] = int(found[2])
        threading.Thread(target=lambda: [None for _ in self.child.stderr], daemon=True).start()

    def memory(self):
        return memory(self.child.pid)

    def settled(self):
        """Memory when it has not fallen for half a second: what is given back is given back within moments."""
        least, since = self.memory(), time.monotonic()
        while time.monotonic() < since + 0.5:
            time.sleep(0.02)
            now = self.memory()
            if now["Rss"] < least["Rss"]:
                least, since = now, time.monotonic()
        return self.memory()

    def peak(self, work):
        """The highest of each number while `work` runs."""
        done, most = threading.Event(), self.memory()

        def sample():
            while not done.is_set():
                now = self.memory()
                most.update({key: max(most[key], now[key]) for key in most})
                time.sleep(LOOK)

        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            work()
        finally:
            done.set()
            sampler.join()
        return most

    def manage(self, path, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["management"], timeout=300)
        connection.request("POST", path, body)
        answer = connection.getresponse()
        text = answer.read().decode()
        if answer.status != 200:
            raise SystemExit(f"size-report: {path}: {answer.status} {text}")

    def deploy(self, name, env, files, threads=1):
        self.manage("/upload", upload(name, env, files, threads))

    def delete(self, name):
        self.manage("/delete", json.dumps({"name": name}).encode())

    def containers(self, name):
        """The processes of a function's containers: for each the ids of what the engine started, its shim among them."""
        ids = subprocess.run(["docker", "ps", "-q", "--filter", f"label=tinyfaas-function={name}", "--filter",
                              f"label=tinyFaaS={self.instance()}"], capture_output=True, text=True, check=True).stdout.split()
        found = []
        for container in ids:
            top = subprocess.run(["docker", "top", container, "-eo", "pid"], capture_output=True, text=True, check=True)
            pids = [int(pid) for pid in top.stdout.split()[1:]]
            with open(f"/proc/{pids[0]}/stat") as file:
                shim = int(file.read().rsplit(")", 1)[1].split()[1])
            found.append({"shim": shim, "inside": pids})
        return found

    def instance(self):
        with open(self.top + "/state/instance") as file:
            return file.read().strip()

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        self.child.wait()
        subprocess.run([self.binary, "clean", "--instance", self.instance()], capture_output=True)
        shutil.rmtree(self.top)


def as_after_a_boot(binary):
    """Has the file read from the disk. The kernel maps a file in pieces as large as it keeps them, and one that was just
    written it keeps in larger ones: more would be resident, by chance. What still runs from it keeps its pages."""
    with open(binary, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def upload(name, env, files, threads=1):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file, content in files.items():
            archive.writestr(file, content)
    zip64 = base64.b64encode(packed.getvalue()).decode()
    return json.dumps({"name": name, "env": env, "threads": threads, "zip": zip64, "envs": []}).encode()
