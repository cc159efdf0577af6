"""Programs that a user would pick instead, each with one worker and settings of our own, whatever its package
starts."""
import os, pathlib, shutil, subprocess

from .server import ROOT, Server, free_port, listens

# Debian's place for servers is not in everybody's PATH.
os.environ["PATH"] += ":/usr/sbin"
# Bytes of the bodies there and back.
SMALL, BIG = 100, 100 * 1024


def install(*pairs):
    """Gets the programs of PROGRAM:PACKAGE pairs where Debian's packages can be had; fails where one is missing
    after that."""
    subprocess.run([ROOT / "tests/setup", *pairs], check=False)
    for pair in pairs:
        program, package = pair.split(":")
        if not shutil.which(program):
            raise SystemExit(f"{program} is missing: install the Debian package {package}")


def nginx(folder, name, http, address):
    """nginx with this `http` block, once it listens at `address`."""
    at = f"{folder}/{name}"
    os.mkdir(at)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {at}/{kind};\n" for kind in kinds)
    config = f"""daemon off; master_process off; worker_processes 1; error_log stderr crit; pid {at}/pid;
events {{ worker_connections 4096; }}
http {{ access_log off; {temporary} keepalive_requests 1000000000; keepalive_timeout 1h; client_max_body_size 0;
{http} }}
"""
    path = pathlib.Path(f"{at}/nginx.conf")
    path.write_text(config)
    server = Server(["nginx", "-p", at, "-c", path])
    server.wait_for("it listened", lambda: listens(address))
    return server


class Backend:
    """What is behind every front door: one haproxy, with one thread, that reads a request whole and answers by itself,
    on two unix sockets: 100 bytes at one, 100 KiB at the other."""

    def __init__(self, folder):
        self.sockets = {"small": f"{folder}/small", "big": f"{folder}/big"}
        doors = ""
        for name, size in (("small", SMALL), ("big", BIG)):
            pathlib.Path(f"{folder}/answer-{name}").write_bytes(b"y" * size)
            doors += f"""frontend {name}
  bind unix@{self.sockets[name]} mode 666
  http-request return status 200 if {{ path /health }}
  http-request wait-for-body time 60s
  http-request return status 200 content-type text/plain file {folder}/answer-{name}
"""
        self.server = haproxy(folder, "backend", "tune.bufsize 262144", doors, self.sockets["small"])


def nginx_proxy(folder, backend):
    """nginx as a proxy that keeps its connections and passes bodies on as they come, with its port."""
    port = free_port()
    upstreams = "".join(
        f"upstream {name} {{ server unix:{path}; keepalive 128; keepalive_requests 1000000000; }}\n"
        for name, path in backend.sockets.items())
    locations = "".join(f"location /{name} {{ proxy_pass http://{name}; }}\n" for name in backend.sockets)
    config = f"""{upstreams} server {{ listen 127.0.0.1:{port}; proxy_http_version 1.1; proxy_set_header Connection "";
proxy_request_buffering off; proxy_buffering off; {locations} }}"""
    return nginx(folder, "proxy", config, ("127.0.0.1", port)), port


def haproxy(folder, name, settings, doors, address):
    """haproxy with one thread and these frontends and backends, once it listens at `address`."""
    path = pathlib.Path(f"{folder}/{name}.cfg")
    path.write_text(f"""global
  nbthread 1
  maxconn 4096
  {settings}
defaults
  mode http
  timeout connect 60s
  timeout client 1h
  timeout server 1h
{doors}""")
    server = Server(["haproxy", "-db", "-q", "-f", path])
    server.wait_for("it listened", lambda: listens(address))
    return server


def haproxy_proxy(folder, backend):
    """haproxy as a proxy that keeps its connections, with its port."""
    port = free_port()
    doors = f"frontend door\n  bind 127.0.0.1:{port}\n  use_backend big if {{ path /big }}\n  default_backend small\n"
    for name, path in backend.sockets.items():
        doors += f"backend {name}\n  http-reuse always\n  server s unix@{path}\n"
    return haproxy(folder, "proxy", "", doors, ("127.0.0.1", port)), port


def nginx_grpc(folder):
    """nginx that passes gRPC calls on to a trivial HTTP/2 server, with its port; and that server."""
    upstream_port, port = free_port(), free_port()
    root = pathlib.Path(f"{folder}/grpc/openfogstack.tinyfaas.tinyfaas.TinyFaaS")
    root.mkdir(parents=True)
    # A gRPC message: not compressed, its length, and the answer's one field.
    (root / "Request").write_bytes(bytes([0, 0, 0, 0, SMALL + 2, 0x0A, SMALL]) + b"y" * SMALL)
    options = ["--no-tls", "-a", "127.0.0.1", "-d", f"{folder}/grpc", "--trailer=grpc-status: 0"]
    upstream = Server(["nghttpd", *options, str(upstream_port)])
    upstream.wait_for("it listened", lambda: listens(("127.0.0.1", upstream_port)))
    config = f"""http2_max_concurrent_streams 128;
upstream up {{ server 127.0.0.1:{upstream_port}; keepalive 64; keepalive_requests 1000000000; }}
server {{ listen 127.0.0.1:{port} http2; location / {{ grpc_pass grpc://up; }} }}"""
    return nginx(folder, "grpc-proxy", config, ("127.0.0.1", port)), port, upstream
