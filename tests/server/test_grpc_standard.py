"""Health and reflection as their own clients ask for them, and the generated code of the .proto file."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool  # type: ignore[import-untyped]
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from kt_es.errors import ConfigError
from kt_es.server.clients import HttpConnections
from kt_es.server.grpc.listening import GrpcServer
from kt_es.server.grpc.methods import SERVICE
from kt_es.server.listening import http_server
from tests.reference.frontends import front, front_with_alice, until
from tests.reference.grpc_doors import PATIENCE, Door, failure_of, grpc_door
from tests.reference.signed_streams import SignedStreams
from tools import proto

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


@pytest.fixture
def door() -> Iterator[Door]:
    with front_with_alice() as made, grpc_door(made) as door:
        yield door


def health(door: Door) -> Any:
    return health_pb2_grpc.HealthStub(door.channel)


def check(door: Door, service: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    return int(health(door).Check(request, timeout=PATIENCE).status)


def test_health_is_that_of_readyz() -> None:
    streams = SignedStreams()
    with front(streams, wait=False) as made, grpc_door(made) as door:
        watch = health(door).Watch(health_pb2.HealthCheckRequest(service=SERVICE.full_name))
        assert (next(watch).status, check(door)) == (NOT_SERVING, NOT_SERVING)
        assert made.get("/readyz").status_code == 503
        streams.epoch()
        assert next(watch).status == SERVING
        assert check(door) == check(door, SERVICE.full_name) == SERVING
        assert made.get("/readyz").status_code == 200
        # An old head is no head for clients.
        made.later = 3 * 86_400_000
        assert next(watch).status == NOT_SERVING
        assert check(door) == NOT_SERVING
        watch.cancel()


def test_an_unknown_service_is_named_so(door: Door) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        check(door, "another.Service")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert failure_of(caught.value).field == "service"
    watch = health(door).Watch(health_pb2.HealthCheckRequest(service="another.Service"))
    assert next(watch).status == SERVICE_UNKNOWN
    watch.cancel()


def test_health_ends_with_the_server() -> None:
    with front_with_alice() as made:
        with grpc_door(made) as door:
            watch = health(door).Watch(health_pb2.HealthCheckRequest())
            assert next(watch).status == SERVING
            heads = door.call("WatchHeads", since=2, timeout=None)
            accounts = made.running.frontend.slots
            until(lambda: accounts.requests == 0)
            made.running.feed._loop.call_soon_threadsafe(made.running.feed.end)  # type: ignore[union-attr]
            assert [answer.status for answer in watch] == [NOT_SERVING]
            assert not list(heads)
            assert check(door) == NOT_SERVING
        assert not made.errors


def test_reflection_gives_a_client_everything_that_it_needs(door: Door) -> None:
    """Without a .proto file: the database fetches the descriptors, and a message is made from them."""
    database = ProtoReflectionDescriptorDatabase(door.channel)
    services = set(database.get_services())
    assert {SERVICE.full_name, "grpc.health.v1.Health"} <= services
    pool = descriptor_pool.DescriptorPool(database)
    found = pool.FindServiceByName(SERVICE.full_name)
    assert [method.name for method in found.methods] == [method.name for method in SERVICE.methods]
    assert pool.FindMessageTypeByName("kt.v1.LookupRequest").fields_by_name["label"].number == 1


@pytest.mark.parametrize(
    ("symbol", "known"),
    [
        ("kt.v1.DirectoryService.WatchHeads", True),
        ("kt.v1.LookupRequest.label", True),
        ("kt.v1.LookupRequest", True),
        ("kt.v1.DirectoryService.Nothing", False),
        ("kt.v1.LookupRequest.nothing", False),
        ("nothing.of.this", False),
        ("", False),
    ],
)
def test_reflection_finds_methods_and_fields(door: Door, symbol: str, known: bool) -> None:
    """``grpcurl describe kt.v1.DirectoryService.WatchHeads`` asks for it."""
    call: Any = door.channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
    (answer,) = call(iter([request]), timeout=PATIENCE)
    assert answer.original_request == request
    if known:
        assert b"DirectoryService" in answer.file_descriptor_response.file_descriptor_proto[0]
    else:
        assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_both_versions_of_reflection_answer(door: Door) -> None:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    for version in ("v1alpha", "v1"):
        call: Any = door.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        (first, second) = call(iter([request, request]), timeout=PATIENCE)
        assert first == second
        assert SERVICE.full_name in {service.name for service in first.list_services_response.service}


def test_a_malformed_request_of_reflection_is_refused(door: Door) -> None:
    call: Any = door.channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    with pytest.raises(grpc.RpcError) as caught:
        list(call(iter([b"\x3a\x00", b"\xff\xff"]), timeout=PATIENCE))
    assert failure_of(caught.value).reason == "malformed"


def test_a_port_that_is_taken_is_an_error_and_nothing_is_served() -> None:
    with (
        front_with_alice() as made,
        socket.create_server(("127.0.0.1", 0)) as taken,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        service, port = made.running, taken.getsockname()[1]
        server = GrpcServer(service.frontend, service.feed, "127.0.0.1", port, room=1)
        connections = HttpConnections(service.clients, 1, service.metrics.refused)
        with (
            pytest.raises(ConfigError, match=f"127.0.0.1:{port}: Address already in use"),
            http_server(service.app, connections, listener, made.errors.append, also=server),
        ):
            raise AssertionError("it was served")
        assert not made.errors


def test_the_generated_code_is_that_of_the_proto_file() -> None:
    assert proto.FILE.read_text() == proto.module(), "write kt_es/_proto/kt_v1.py anew: make proto"


def test_every_part_of_the_proto_file_is_documented() -> None:
    """Each method, each message that is no plain request, and each field whose name does not say it all."""
    lines = [line.strip() for line in (proto.ROOT / "proto" / proto.SOURCE).read_text().splitlines()]
    for position, line in enumerate(lines):
        if line.startswith("rpc "):
            assert lines[position - 1].startswith("//"), line
    (file,) = [descriptor_pb2.FileDescriptorProto.FromString(proto.descriptor())]
    assert file.package == "kt.v1"
    assert {method.name for method in file.service[0].method} == {method.name for method in SERVICE.methods}
