"""What clients ask first: the members of the cluster (gossip), and the methods that the server supports."""

# ruff: noqa: N802  methods have the protocol's names

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

import grpc
from google.protobuf.descriptor import ServiceDescriptor  # type: ignore[import-untyped]

from kt_es.node.protocol import gossip_pb2, gossip_pb2_grpc, shared_pb2
from kt_es.node.store.records import field

VERSION = "23.10.0"  # of EventStoreDB, whose behaviour the node has
_GROUPS = {"create", "update", "delete", "read", "getinfo", "replayparked", "list"}


class Gossip(gossip_pb2_grpc.GossipServicer):
    """A cluster of one member, the leader."""

    def __init__(self, instance: UUID, host: str, port: int) -> None:
        self._member = gossip_pb2.MemberInfo(
            instance_id=shared_pb2.UUID(string=str(instance)),
            state=gossip_pb2.MemberInfo.Leader,
            is_alive=True,
            http_end_point=gossip_pb2.EndPoint(address=host, port=port),
        )

    async def Read(self, _request: Any, _context: Any) -> gossip_pb2.ClusterInfo:
        return gossip_pb2.ClusterInfo(members=[self._member])


def supported_methods(services: Iterable[ServiceDescriptor]) -> bytes:
    """``SupportedMethods`` {methods {method_name 1, service_name 2, features 3} 1, version 2}.

    The client library has no classes for this service. Other official clients ask it first, and use only the
    methods that it names.
    """
    methods = b"".join(
        field(1, _supported(method.name.lower(), service.full_name))
        for service in services
        for method in service.methods
    )
    return methods + field(2, VERSION.encode())


def _supported(method: str, service: str) -> bytes:
    features: tuple[bytes, ...] = ()
    if service.endswith(".PersistentSubscriptions") and method in _GROUPS:
        features = (b"stream", b"all")
    elif method == "batchappend":
        features = (b"deadline_duration",)
    named = field(1, method.encode()) + field(2, service.encode())
    return named + b"".join(field(3, feature) for feature in features)


def register_raw(server: Any, service: str, method: str, answer: bytes) -> None:
    """Serve a unary method without a servicer class, which answers ``answer`` to everybody."""

    async def call(_request: bytes, _context: Any) -> bytes:
        return answer

    handler: Any = grpc.unary_unary_rpc_method_handler(call, None, None)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
