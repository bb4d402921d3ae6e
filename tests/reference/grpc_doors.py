"""A front end in this process with its gRPC server on a real socket, and grpcio as its client.

One server at a time: the asyncio interface of grpcio serves one event loop of a process. The embedded node is
such a server as well.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass  # type: ignore[import-untyped]
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from kt_es._proto import kt_v1
from kt_es.formats.notes import decode_base64
from kt_es.server.clients import HttpConnections
from kt_es.server.grpc.listening import GrpcServer
from kt_es.server.grpc.methods import SERVICE
from kt_es.server.listening import http_server
from tests.reference.frontends import Front

PATIENCE = 20.0
_BINARY = ("mutation", "opening", "profile", "erasure")


@dataclass(frozen=True, slots=True)
class Failure:
    """What a client learns of a failed call."""

    code: grpc.StatusCode
    reason: str
    field: str | None
    retry_after: int | None
    verdict: Any
    detail: str


def failure_of(error: grpc.RpcError) -> Failure:
    """Read the rich status of a failed call; every problem has one."""
    status: Status | None = rpc_status.from_call(error)
    assert status is not None, error
    info, violations, retry, verdict = ErrorInfo(), BadRequest(), RetryInfo(), kt_v1.Verdict()
    found = {kind.DESCRIPTOR.full_name: kind for kind in (info, violations, retry, verdict)}
    for detail in status.details:
        detail.Unpack(found.pop(detail.TypeName()))
    assert "google.rpc.ErrorInfo" not in found
    assert info.domain == "kt.v1"
    has_retry = "google.rpc.RetryInfo" not in found
    fields = [violation.field for violation in violations.field_violations]
    return Failure(
        error.code(),
        info.reason,
        fields[0] if fields else None,
        retry.retry_delay.seconds if has_retry else None,
        None if "kt.v1.Verdict" in found else verdict,
        status.message,
    )


class Stub:
    """The methods of ``kt.v1.DirectoryService`` over ``channel``, as generated code has them."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel

    def method(self, name: str) -> Any:
        described = SERVICE.methods_by_name[name]
        make = self.channel.unary_stream if described.server_streaming else self.channel.unary_unary
        return make(
            f"/{SERVICE.full_name}/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(described.output_type).FromString,
        )

    def call(self, name: str, *, timeout: float | None = PATIENCE, **members: Any) -> Any:
        """Call a method with a message of ``members``."""
        return self.send(name, self.request(name, **members), timeout=timeout)

    def request(self, name: str, **members: Any) -> Any:
        return GetMessageClass(SERVICE.methods_by_name[name].input_type)(**members)

    def send(self, name: str, message: Any, **options: Any) -> Any:
        return self.method(name)(message, **options)

    def failure(self, name: str, **members: Any) -> Failure:
        """Call a method, which has to fail."""
        try:
            self.call(name, **members)
        except grpc.RpcError as error:
            return failure_of(error)
        raise AssertionError(f"{name} did not fail")


class Door(Stub):
    """A running gRPC server of ``front``."""

    def __init__(self, front: Front, port: int) -> None:
        self.front = front
        self.port = port
        super().__init__(channel_to(port))

    def count(self, why: str) -> float:
        return self.front.running.metrics.refused.labels(why)._value.get()  # type: ignore[no-any-return]


def channel_to(port: int, *options: tuple[str, Any]) -> grpc.Channel:
    """A connection of its own, which does not use a proxy of the environment."""
    own = ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)
    return grpc.insecure_channel(f"127.0.0.1:{port}", options=[*own, *options])


@contextmanager
def grpc_door(front: Front, *, room: int = 100, files: tuple[Path, Path] | None = None) -> Iterator[Door]:
    """Serve ``front``, which runs, by gRPC beside HTTP."""
    service = front.running
    server = GrpcServer(service.frontend, service.feed, "127.0.0.1", 0, room=room, files=files)
    connections = HttpConnections(service.clients, room, service.metrics.refused)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        http_server(service.app, connections, listener, front.errors.append, also=server),
    ):
        door = Door(front, int(server.bound.rpartition(":")[2]))
        try:
            yield door
        finally:
            door.channel.close()


def members(body: dict[str, Any]) -> dict[str, Any]:
    """The members of a request in JSON as those of a message."""
    taken = {name: decode_base64(value, name) if name in _BINARY else value for name, value in body.items()}
    return {name: value for name, value in taken.items() if name != "wait"}
