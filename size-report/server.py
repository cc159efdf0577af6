"""A server of a release binary, and what it holds of memory."""
import os, pathlib, re, resource, shutil, subprocess, sys, tempfile, threading, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "benches"))
from harness.server import Tinyfaas

RUNTIMES = ("python3", "nodejs", "binary")
FIELDS = ("Rss", "Pss", "Private_Dirty", "Anonymous")
# How often memory is looked at while something runs, in seconds.
LOOK = 0.002


def memory(pid):
    """Rss, Pss, Private_Dirty and Anonymous of a process, in kB, and its threads."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        found = dict(re.findall(r"^(\w+):\s+(\d+) kB", file.read(), re.M))
    return {field: int(found[field]) for field in FIELDS} | {"threads": len(os.listdir(f"/proc/{pid}/task"))}


class Server(Tinyfaas):
    """Runs `binary` with every door open, by `wrapper` if there is one. `connections` may be open at once."""

    def __init__(self, binary, backend="docker", connections=2000, wrapper=()):
        self.binary = binary
        self.top = tempfile.mkdtemp(prefix="tf-")
        # Handlers that are processes are somebody else.
        os.chmod(self.top, 0o711)
        flags = ["--backend", backend]
        if backend == "docker":
            for env in RUNTIMES:
                flags += ["--runtime-base", f"{env}=tinyfaas-test/{env}"]
        # At the bound, idle connections would be closed for new ones.
        flags += ["--max-connections", str(connections), "--head-timeout", "10m", "--idle-timeout", "10m"]
        flags += ["--max-functions", "256"]
        as_after_a_boot(binary)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        super().__init__(binary, self.top, flags, wrapper)

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

    def delete(self, name):
        self.manage("/delete", {"name": name})

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
        super().stop()
        subprocess.run([self.binary, "clean", "--instance", self.instance()], capture_output=True)
        shutil.rmtree(self.top)


def as_after_a_boot(binary):
    """Has the file read from the disk. The kernel maps a file in pieces as large as it keeps them, and one that was just
    written it keeps in larger ones: more would be resident, by chance. What still runs from it keeps its pages."""
    with open(binary, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
