"""What calls a server while its memory is looked at: h2load for HTTP and gRPC, sockets for CoAP and for bodies."""
import socket, struct, subprocess, tempfile, threading

PIECE = b"x" * 65536


def http_calls(port, name, count, connections):
    """`count` calls on `connections` kept connections."""
    h2load(count, connections, f"http://127.0.0.1:{port}/{name}", b"x", "--h1")


def grpc_calls(port, name, count, connections):
    """`count` calls, one at a time on each connection."""
    data = b"\n" + bytes([len(name)]) + name.encode() + b"\x12\x01x"
    url = f"http://127.0.0.1:{port}/openfogstack.tinyfaas.tinyfaas.TinyFaaS/Request"
    h2load(count, connections, url, b"\0" + struct.pack(">I", len(data)) + data, "-m1", "-H", "content-type: application/grpc",
           "-H", "te: trailers")


def h2load(count, connections, url, body, *options):
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        told = subprocess.run(["h2load", "-n", str(count), "-c", str(connections), "-d", file.name, *options, url],
                              capture_output=True, text=True, check=True).stdout
    if f"{count} succeeded, 0 failed, 0 errored" not in told:
        raise SystemExit(f"size-report: calls failed: {told}")


def coap_calls(port, name, count, callers, expected=0x45):
    """`count` confirmable POSTs by each of `callers` endpoints, each answered with the code `expected`: 2.05 (RFC 7252 3)."""
    failed = []

    def caller():
        endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        endpoint.connect(("127.0.0.1", port))
        endpoint.settimeout(20)
        for message in range(count):
            # CON, 2-byte token, POST; Uri-Path (11); payload (RFC 7252 3).
            head = struct.pack(">BBHH", 0x42, 0x02, message, message)
            endpoint.send(head + bytes([0xB0 | len(name)]) + name.encode() + b"\xffx")
            answer = endpoint.recv(2048)
            while answer[0] >> 4 & 3 == 2 and answer[1] == 0:
                answer = endpoint.recv(2048)
            if answer[0] >> 4 & 3 == 0:
                endpoint.send(b"\x60\0" + answer[2:4])
            if answer[1] != expected:
                failed.append(answer)
                return

    threads = [threading.Thread(target=caller) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise SystemExit(f"size-report: a CoAP call was answered {failed[0]!r}")


def at_once(*works):
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def pass_through(port, name, size):
    """Sends `size` bytes to a function that sends them back, reading while it writes."""
    connection = socket.create_connection(("127.0.0.1", port))

    def send():
        connection.sendall(f"POST /{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n".encode())
        for _ in range(size // len(PIECE)):
            connection.sendall(PIECE)

    sender = threading.Thread(target=send)
    sender.start()
    total = 0
    while data := connection.recv(1 << 18):
        total += len(data)
    sender.join()
    if total < size:
        raise SystemExit(f"size-report: only {total} of {size} bytes came back")


def idle_connections(port, count):
    """`count` connections that made a call each and are kept. One address has not enough ports for many."""
    kept = []
    for n in range(count):
        connection = socket.socket()
        connection.bind((f"127.0.1.{1 + n // 5000}", 0))
        connection.connect(("127.0.0.1", port))
        connection.sendall(b"GET /nobody HTTP/1.1\r\nHost: x\r\n\r\n")
        if not connection.recv(4096).startswith(b"HTTP/1.1 404"):
            raise SystemExit("size-report: a connection was refused")
        kept.append(connection)
    return kept
