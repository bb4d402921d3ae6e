"""Registers services under the protocol's names, and has the services that clients call first.

The generated functions cannot be used for this, because reads answer with bytes that are already serialised.
Every call passes through this module: access is checked, calls are limited and counted, and refusals become
statuses.
"""

# ruff: noqa: N802  methods have the protocol's names

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from uuid import uuid4

import grpc.aio
import structlog
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor  # type: ignore[import-untyped]
from google.protobuf.message_factory import GetMessageClass  # type: ignore[import-untyped]

from kt_es.node.counts import SUBSCRIBE, Counts, Traffic
from kt_es.node.protocol import gossip_pb2, gossip_pb2_grpc, shared_pb2
from kt_es.node.refusals import Quota, Refusal, not_ready
from kt_es.node.rpc.gate import Access
from kt_es.node.store.records import field
from kt_es.node.store.storage import StorageError

_READ = "event_store.client.streams.Streams.Read"
_LOG = structlog.get_logger("kt_es.node")
VERSION = "23.10.0"  # of EventStoreDB, whose behaviour the node has
_GROUPS = {"create", "update", "delete", "read", "getinfo", "replayparked", "list"}
Method = Callable[[Any, Any], Awaitable[Any]]


def _counted(traffic: Traffic) -> Callable[[Any], bytes]:
    def serialise(answer: Any) -> bytes:
        data: bytes = answer if isinstance(answer, bytes) else answer.SerializeToString()
        traffic.messages += 1
        traffic.bytes += len(data)
        return data

    return serialise


def _measured(method: Method, traffic: Traffic, subscriptions: Traffic | None) -> Method:
    """Count the calls of ``method``; ``subscriptions`` are counted apart, if the method has any."""

    async def call(request: Any, context: Any) -> Any:
        counted = traffic
        if subscriptions is not None and request.options.WhichOneof("count_option") == "subscription":
            counted = subscriptions
        counted.open += 1
        status = "OK"
        try:
            return await method(request, context)
        except asyncio.CancelledError:
            status = "CANCELLED"
            raise
        except BaseException:
            # ``abort`` raises and has set the code; anything else becomes UNKNOWN.
            code = context.code()
            status = code.name if isinstance(code, grpc.StatusCode) else "UNKNOWN"
            raise
        finally:
            counted.end(status)

    return call


class _Incoming:
    """The requests of a call. Cheaper than the iterator of gRPC, a generator made for each call."""

    def __init__(self, context: Any) -> None:
        self._read = context.read

    def __aiter__(self) -> _Incoming:
        return self

    async def __anext__(self) -> Any:
        request = await self._read()
        if request is grpc.aio.EOF:
            raise StopAsyncIteration
        return request


def _guarded(method: Method, name: str, access: Access, calls: Quota, streams: bool) -> Method:
    """Return ``method`` behind the gate and within the limit.

    Args:
        streams: The method takes an iterator of requests.
    """

    async def call(request: Any, context: Any) -> Any:
        if streams:
            request = _Incoming(context)
        try:
            if access.open:
                pass
            elif streams:
                request = access.admitted(name, request, context)
            else:
                await access.admit(name, request, context)
            calls.take()
            try:
                return await method(request, context)
            finally:
                calls.give()
        except Refusal as refusal:
            _LOG.debug("refused", call=name, status=refusal.code.name, details=refusal.details)
            await context.abort(refusal.code, refusal.details, refusal.trailers)
        except StorageError as error:
            failed = not_ready(str(error))
            await context.abort(failed.code, failed.details, failed.trailers)
        except grpc.aio.InternalError:
            # A message could not be sent or received: the client is gone, often before gRPC cancels the call.
            _LOG.debug("the client is gone", call=name)
            raise asyncio.CancelledError from None

    return call


def _handler(
    method: Method, descriptor: MethodDescriptor, access: Access, counts: Counts, calls: Quota
) -> Any:
    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    make = kinds[descriptor.client_streaming, descriptor.server_streaming]
    parse = GetMessageClass(descriptor.input_type).FromString
    guarded = _guarded(method, descriptor.full_name, access, calls, descriptor.client_streaming)
    traffic = counts.traffic(f"{descriptor.containing_service.name}.{descriptor.name}")
    subscriptions = counts.traffic(SUBSCRIBE) if descriptor.full_name == _READ else None
    return make(_measured(guarded, traffic, subscriptions), parse, _counted(traffic))


def register(
    server: Any, servicer: object, service: ServiceDescriptor, *, access: Access, counts: Counts, calls: Quota
) -> None:
    """Serve ``service`` by the methods of ``servicer`` with the same names, behind the gate."""
    handlers = {
        method.name: _handler(getattr(servicer, method.name), method, access, counts, calls)
        for method in service.methods
    }
    generic = grpc.method_handlers_generic_handler(service.full_name, handlers)
    server.add_generic_rpc_handlers((generic,))


class Gossip(gossip_pb2_grpc.GossipServicer):
    """A cluster of one member, the leader."""

    def __init__(self, host: str, port: int) -> None:
        self._member = gossip_pb2.MemberInfo(
            instance_id=shared_pb2.UUID(string=str(uuid4())),
            state=gossip_pb2.MemberInfo.Leader,
            is_alive=True,
            http_end_point=gossip_pb2.EndPoint(address=host, port=port),
        )

    async def Read(self, _request: Any, _context: Any) -> gossip_pb2.ClusterInfo:
        return gossip_pb2.ClusterInfo(members=[self._member])


def supported_methods(services: Iterable[ServiceDescriptor]) -> bytes:
    """Return an encoded ``SupportedMethods``.

    It is {methods {method_name 1, service_name 2, features 3} 1, version 2}.

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
