"""Load by h2load, and what it found."""
import os, re, subprocess

from .server import PATIENCE, Server


def load(server: Server, url, calls, connections, question, streams=1, fields=(), http1=True, unix=None):
    """Makes `calls` calls with the file `question` as their body and measures them; all have to succeed. They go to the
    socket at the path `unix` where there is one.

    Processor time is that of `server`, or of all processes that `pids` gives.
    """
    log = f"{question}.log"
    command = ["h2load", "-n", str(calls), "-c", str(connections), "-m", str(streams), "-d", question]
    command += [f"--log-file={log}"]
    command += ["--h1"] if http1 else []
    # The URL's host is only named then.
    command += [f"--base-uri=unix:{unix}"] if unix else []
    for field in fields:
        command += ["-H", field]
    # It adds to the file.
    if os.path.exists(log):
        os.remove(log)
    before = server.cpu()
    out = subprocess.run([*command, url], capture_output=True, text=True, timeout=10 * PATIENCE).stdout
    cpu = server.cpu() - before
    if f"{calls} succeeded, 0 failed, 0 errored" not in out or f"status codes: {calls} 2xx" not in out:
        raise SystemExit(f"not all calls of {url} succeeded:\n{out}")
    # Start, status and microseconds of each call.
    with open(log) as file:
        times = sorted(int(line.split("\t")[2]) for line in file)
    return {
        "rate": float(re.search(r"finished in .*?, ([\d.]+) req/s", out)[1]),
        "p50_us": times[len(times) // 2],
        "p99_us": times[len(times) * 99 // 100],
        "cpu_us": cpu * 1e6 / calls,
    }
