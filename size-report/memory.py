"""The situations in which memory is measured. Each is a row: its name, its numbers, and the row that it is more than."""
import json, os, pathlib, time

import callers
from server import Server, memory
from harness.server import children, upload

MIB = 1 << 20
CAT = ("cat", "binary", {"fn.sh": "exec cat\n"})
PY = ("py", "python3", {"fn.py": "def fn(input):\n    return input\n"})
JS = ("js", "nodejs", {"index.js": "module.exports = (req, res) => res.send(req.body);\n"})
HANDLER_CALLS = 1000


def server_rows(binary, backend, calls):
    """The server itself, in the order of a day: idle, functions, an upload, bodies, load, connections."""
    rows = {}
    server = Server(binary, backend, connections=12000)
    try:
        rows["idle, no function"] = server.settled()
        for function in (CAT, PY, JS):
            server.deploy(*function)
        time.sleep(1)
        rows["idle, three functions"] = server.settled()
        body = json.dumps(upload("big", "binary", {"fn.sh": "cat\n", "data": os.urandom(20 * MIB)})).encode()
        rows["peak: a 20 MiB zip is uploaded"] = server.peak(lambda: server.manage("/upload", body))
        server.delete("big")
        http = server.ports["http"]
        rows["peak: 100 MiB there and back"] = server.peak(lambda: callers.pass_through(http, "cat", 100 * MIB))
        rows["peak: 64 HTTP, 16 CoAP, 16 gRPC callers"] = server.peak(lambda: callers.at_once(
            lambda: callers.http_calls(http, "py", 20_000, 64),
            lambda: callers.coap_calls(server.ports["coap"], "py", 300, 16),
            lambda: callers.grpc_calls(server.ports["grpc"], "py", 5_000, 16),
        ))
        time.sleep(2)
        rows["after that load"] = server.settled()
        callers.http_calls(http, "py", calls, 64)
        time.sleep(2)
        rows["after many more calls"] = server.settled()
        for count in (1_000, 10_000):
            kept = callers.idle_connections(http, count)
            rows[f"{count:,} idle keep-alive connections"] = server.settled()
            for connection in kept:
                connection.close()
            time.sleep(1)
        for n in range(27):
            server.deploy(f"f{n}", "binary", CAT[2])
        time.sleep(1)
        rows["idle, thirty functions"] = server.settled()
    finally:
        server.stop()
    return rows


def handler_rows(binary, backend):
    """Each runtime's handler idle and after calls, and what a second one of the same function adds."""
    rows = {}
    server = Server(binary, backend)
    try:
        if backend == "docker":
            # The pages of programs count for nobody alone where they run already, as they do on a board.
            server.deploy("other", "binary", CAT[2], threads=2)
        for name, env, files in (PY, JS, CAT):
            server.deploy(name, env, files)
            handler = handlers(server, name)[0]
            rows[f"{env}: a handler, idle"] = memory(handler)
            callers.http_calls(server.ports["http"], name, HANDLER_CALLS, 4)
            time.sleep(1)
            rows[f"{env}: after {HANDLER_CALLS:,} calls"] = memory(handler)
            before = own(server, name)
            server.deploy(name, env, files, threads=2)
            time.sleep(1)
            rows[f"{env}: what a second handler adds"] = {"Private": own(server, name) - before}
            server.delete(name)
    finally:
        server.stop()
    return rows


def handlers(server, name):
    """The ids of a function's handler processes: of each container the one that is not its init."""
    if server.containers(name):
        return [container["inside"][-1] for container in server.containers(name)]
    return children(server.child.pid)


def own(server, name):
    """kB that nobody else shares, of all processes that run a function: its containers' shims included."""
    found = server.containers(name)
    pids = [pid for container in found for pid in (container["shim"], *container["inside"])] or children(server.child.pid)
    total = 0
    for pid in pids:
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Private_"):
                total += int(line.split()[1])
    return total
