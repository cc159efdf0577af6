"""grpcio over TLS against a server whose function `cat` answers what it is asked.

usage: grpcio_tls.py HOST:PORT PROTO_FOLDER CA_FILE
"""

import importlib
import sys
import tempfile
from concurrent import futures
from pathlib import Path

import grpc
from grpc_tools import protoc

TARGET, PROTOS, CA = sys.argv[1], sys.argv[2], Path(sys.argv[3])


def stubs(out):
    arguments = ["", f"-I{PROTOS}", f"--python_out={out}", f"--grpc_python_out={out}", "tinyfaas.proto"]
    assert protoc.main(arguments) == 0
    sys.path.insert(0, out)
    return importlib.import_module("tinyfaas_pb2"), importlib.import_module("tinyfaas_pb2_grpc")


def code_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    raise AssertionError("it worked")


def main():
    trusting = grpc.ssl_channel_credentials(CA.read_bytes())
    with tempfile.TemporaryDirectory() as out:
        pb2, grpc2 = stubs(out)
        with grpc.secure_channel(TARGET, trusting) as channel:
            stub = grpc2.TinyFaaSStub(channel)
            ask = lambda data, function="cat": stub.Request(pb2.Data(functionIdentifier=function, data=data), timeout=20).response
            for size in (0, 1, 5_000, 40_000, 500_000):
                assert ask("x" * size) == "x" * size, size
            assert code_of(lambda: ask("", "nobody")) == grpc.StatusCode.NOT_FOUND
            with futures.ThreadPoolExecutor(16) as pool:
                assert list(pool.map(lambda n: ask(str(n)), range(100))) == [str(n) for n in range(100)]
        # In the clear, and trusting others: no call gets through.
        for channel in (grpc.insecure_channel(TARGET), grpc.secure_channel(TARGET, grpc.ssl_channel_credentials())):
            with channel:
                stub = grpc2.TinyFaaSStub(channel)
                call = lambda: stub.Request(pb2.Data(functionIdentifier="cat"), timeout=20)
                assert code_of(call) == grpc.StatusCode.UNAVAILABLE
    print("all well")


main()
