"""Registers the methods of a servicer under the protocol's names.

The generated functions cannot do it, because reads answer with bytes that are already serialised. Every call
passes through here: access is checked, calls are limited and counted, and refusals become statuses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio
import structlog
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor  # type: ignore[import-untyped]
from google.protobuf.message_factory import GetMessageClass  # type: ignore[import-untyped]

from kt_es.node.counts import SUBSCRIBE, Counts, Traffic
from kt_es.node.refusals import Refusal, not_ready
from kt_es.node.rpc.gate import Access
from kt_es.node.store.storage import StorageError

_READ = "event_store.client.streams.Streams.Read"
_LOG = structlog.get_logger("kt_es.node")
Method = Callable[[Any, Any], Awaitable[Any]]


class Calls:
    """Limits the calls under way. The own limit of gRPC counts a refused call for too long."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._open = 0

    def enter(self) -> None:
        """Count a call; raise ``Refusal`` in the words of gRPC if there are too many."""
        if self._open >= self.limit:
            raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!")
        self._open += 1

    def leave(self) -> None:
        self._open -= 1


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


def _guarded(method: Method, name: str, access: Access, calls: Calls, streams: bool) -> Method:
    """``method`` behind the gate and within the limit. ``streams``: it takes an iterator of requests."""

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
            calls.enter()
            try:
                return await method(request, context)
            finally:
                calls.leave()
        except Refusal as refusal:
            _LOG.debug("refused", call=name, status=refusal.code.name, details=refusal.details)
            await context.abort(refusal.code, refusal.details, refusal.trailers)
        except StorageError as error:
            failed = not_ready(str(error))
            await context.abort(failed.code, failed.details, failed.trailers)

    return call


def _handler(
    method: Method, descriptor: MethodDescriptor, access: Access, counts: Counts, calls: Calls
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
    server: Any,
    servicer: object,
    service: ServiceDescriptor,
    access: Access,
    *,
    counts: Counts,
    calls: Calls,
) -> None:
    """Serve ``service`` by the methods of ``servicer`` with the same names, behind the gate."""
    handlers = {
        method.name: _handler(getattr(servicer, method.name), method, access, counts, calls)
        for method in service.methods
    }
    generic = grpc.method_handlers_generic_handler(service.full_name, handlers)
    server.add_generic_rpc_handlers((generic,))
