"""grpcio, another make of gRPC, against a front door with the functions that tests/it/grpc_peers.rs installs.

usage: grpcio_client.py HOST:PORT PROTO_FOLDER
"""

import importlib
import sys
import tempfile
import threading
from concurrent import futures
from pathlib import Path

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_tools import protoc

TARGET, PROTOS = sys.argv[1], Path(sys.argv[2])
SERVICE = "openfogstack.tinyfaas.tinyfaas.TinyFaaS"


def generated_stubs(out):
    """Stubs that protoc makes of our own proto."""
    arguments = ["", f"-I{PROTOS}", f"--python_out={out}", f"--grpc_python_out={out}", "tinyfaas.proto"]
    assert protoc.main(arguments) == 0
    sys.path.insert(0, out)
    return importlib.import_module("tinyfaas_pb2"), importlib.import_module("tinyfaas_pb2_grpc")


def public_messages():
    """Messages as stubs compiled long ago know them: two string fields and one, nothing else."""
    file = descriptor_pb2.FileDescriptorProto(name="old.proto", package="openfogstack.tinyfaas.tinyfaas", syntax="proto3")
    for name, fields in [("Data", ["functionIdentifier", "data"]), ("Response", ["response"])]:
        message = file.message_type.add(name=name)
        for number, field in enumerate(fields, 1):
            message.field.add(name=field, number=number, type=9, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    get = lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}"))
    return get("Data"), get("Response")


def refusal(call, code, text=""):
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code and text in error.details(), error
        return error
    raise AssertionError(f"it worked instead of {code}")


def check_calls(channel, pb2, stub):
    ask = lambda function, data="", **more: stub.Request(pb2.Data(functionIdentifier=function, data=data), timeout=20, **more)
    assert ask("echo", "caf\u00e9").response == "caf\u00e9"
    assert ask("echo", "").response == ""
    for size in (1, 5_000, 40_000, 100_000, 1_000_000):
        assert ask("echo", "x" * size).response == "x" * size
    answer = stub.Request(pb2.Data(functionIdentifier="echo", payload=b"\xff\0"), timeout=20)
    assert answer.payload == b"\xff\0" and answer.response == ""
    refusal(lambda: ask("nobody"), grpc.StatusCode.NOT_FOUND, "nobody")
    error = refusal(lambda: ask("fails"), grpc.StatusCode.INTERNAL, "na\u00efve 100%\nboom")
    assert ("x-why", "because") in error.trailing_metadata(), error.trailing_metadata()
    refusal(lambda: ask("echo", "x" * 1_100_000), grpc.StatusCode.RESOURCE_EXHAUSTED)
    refusal(lambda: stub.Request(pb2.Data(functionIdentifier="slow"), timeout=0.2), grpc.StatusCode.DEADLINE_EXCEEDED)
    head, call = stub.Request.with_call(
        pb2.Data(functionIdentifier="headers"), timeout=20, metadata=[("x-a", "1"), ("x-a", "2"), ("trace-bin", b"\0\1\2")]
    )
    for line in ("x-a: 1", "x-a: 2", "trace-bin: AAEC", "user-agent: grpc-python", "grpc-timeout: "):
        assert line in head.response, (line, head.response)
    metadata = dict(call.initial_metadata())
    assert metadata["x-answer"] == "42" and metadata["blob-bin"] == b"\0\1\2", metadata


def check_old_stubs(channel):
    Data, Response = public_messages()
    call = channel.unary_unary(
        f"/{SERVICE}/Request", request_serializer=Data.SerializeToString, response_deserializer=Response.FromString
    )
    assert call(Data(functionIdentifier="echo", data="old"), timeout=20).response == "old"


def check_gzip(pb2, grpc2):
    with grpc.insecure_channel(TARGET, compression=grpc.Compression.Gzip) as channel:
        answer = grpc2.TinyFaaSStub(channel).Request(pb2.Data(functionIdentifier="echo", data="z" * 50_000), timeout=20)
        assert answer.response == "z" * 50_000
    with grpc.insecure_channel(TARGET, compression=grpc.Compression.Deflate) as channel:
        stub = grpc2.TinyFaaSStub(channel)
        refusal(
            lambda: stub.Request(pb2.Data(functionIdentifier="echo", data="z" * 50_000), timeout=20),
            grpc.StatusCode.UNIMPLEMENTED,
            "gzip",
        )


def check_many(pb2, stub):
    """Far more calls at once than streams on a connection."""
    with futures.ThreadPoolExecutor(50) as pool:
        ask = lambda n: stub.Request(pb2.Data(functionIdentifier="echo", data=str(n)), timeout=60).response
        assert list(pool.map(ask, range(1000))) == [str(n) for n in range(1000)]


def check_cancel(pb2, stub):
    for _ in range(20):
        call = stub.Request.future(pb2.Data(functionIdentifier="slow"), timeout=20)
        call.cancel()
        assert call.code() == grpc.StatusCode.CANCELLED
    assert stub.Request(pb2.Data(functionIdentifier="echo", data="well"), timeout=20).response == "well"


def check_health(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", SERVICE, "echo"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    refusal(lambda: stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=20), grpc.StatusCode.NOT_FOUND)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="nobody"), timeout=20)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


def check_reflection(channel, out):
    """What reflection tells is what protoc makes of our files; grpcio's own database of descriptors can use it."""
    database = ProtoReflectionDescriptorDatabase(channel)
    assert SERVICE in database.get_services(), database.get_services()
    pool = descriptor_pool.DescriptorPool(database)
    method = pool.FindServiceByName(SERVICE).FindMethodByName("Request")
    assert [f.name for f in method.input_type.fields] == ["functionIdentifier", "data", "payload"]
    names = sorted(file.name for file in PROTOS.glob("*.proto"))
    assert protoc.main(["", f"-I{PROTOS}", f"-o{out}/all.bin", *names]) == 0
    compiled = descriptor_pb2.FileDescriptorSet.FromString(Path(out, "all.bin").read_bytes())
    assert len(compiled.file) == 4
    for ours in compiled.file:
        # protoc leaves JSON names out of what it writes with -o where they follow from the names; we tell them.
        for message in ours.message_type:
            for field in message.field:
                words = field.name.split("_")
                field.json_name = words[0] + "".join(w[:1].upper() + w[1:] for w in words[1:])
    for version in ("v1", "v1alpha"):
        check_reflection_of(channel, version, compiled.file)


def check_reflection_of(channel, version, files):
    """Every kind of question in one stream. grpcio has messages of v1alpha alone: those of v1 are the same on the wire."""
    service = f"grpc.reflection.{version}.ServerReflection"
    call = channel.stream_stream(
        f"/{service}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    question = reflection_pb2.ServerReflectionRequest
    answers = call(
        iter(
            [question(file_by_filename=file.name) for file in files]
            + [question(file_containing_symbol=f"{file.package}.{file.service[0].name}") for file in files]
            + [question(list_services="*"), question(file_containing_symbol="no.Symbol"), question(file_by_filename="no.proto")]
        ),
        timeout=20,
    )
    for ours in [*files, *files]:
        (told,) = next(answers).file_descriptor_response.file_descriptor_proto
        told = descriptor_pb2.FileDescriptorProto.FromString(told)
        assert told == ours, f"{ours.name}:\n{told}\nis not\n{ours}"
    listed = [entry.name for entry in next(answers).list_services_response.service]
    assert sorted(listed) == sorted(f"{file.package}.{file.service[0].name}" for file in files), listed
    for name in ("no.Symbol", "no.proto"):
        answer = next(answers)
        assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0] and name in str(answer), answer
    assert list(answers) == []


def main():
    with tempfile.TemporaryDirectory() as out, grpc.insecure_channel(TARGET) as channel:
        pb2, grpc2 = generated_stubs(out)
        stub = grpc2.TinyFaaSStub(channel)
        check_calls(channel, pb2, stub)
        check_old_stubs(channel)
        check_gzip(pb2, grpc2)
        check_many(pb2, stub)
        check_cancel(pb2, stub)
        check_health(channel)
        check_reflection(channel, out)
    print("all well")


main()
