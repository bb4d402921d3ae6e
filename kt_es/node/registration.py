"""Puts a servicer's methods behind the protocol's names.

The servicers derive from the classes that esdbclient ships; they are registered here and not by the
generated functions because reads answer with bytes that are serialised already. This is also the one
place that every call passes: refusals become statuses here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import structlog
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor  # type: ignore[import-untyped]
from google.protobuf.message_factory import GetMessageClass  # type: ignore[import-untyped]

from kt_es.node.refusals import Refusal, not_ready
from kt_es.node.storage import StorageError

_LOG = structlog.get_logger("kt_es.node")
Method = Callable[[Any, Any], Awaitable[Any]]


def serialised(answer: Any) -> bytes:
    """Bytes as they are, messages serialised."""
    if isinstance(answer, bytes):
        return answer
    data: bytes = answer.SerializeToString()
    return data


def _guarded(method: Method, name: str) -> Method:
    async def call(request: Any, context: Any) -> Any:
        try:
            return await method(request, context)
        except Refusal as refusal:
            _LOG.debug("refused", call=name, status=refusal.code.name, details=refusal.details)
            await context.abort(refusal.code, refusal.details, refusal.trailers)
        except StorageError as error:
            failed = not_ready(str(error))
            await context.abort(failed.code, failed.details, failed.trailers)

    return call


def _handler(method: Method, descriptor: MethodDescriptor) -> Any:
    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    make = kinds[descriptor.client_streaming, descriptor.server_streaming]
    parse = GetMessageClass(descriptor.input_type).FromString
    return make(_guarded(method, descriptor.full_name), parse, serialised)


def register(server: Any, servicer: object, service: ServiceDescriptor) -> None:
    """Serve ``service`` from the methods of ``servicer`` of the same names."""
    handlers = {method.name: _handler(getattr(servicer, method.name), method) for method in service.methods}
    generic = grpc.method_handlers_generic_handler(service.full_name, handlers)
    server.add_generic_rpc_handlers((generic,))


def register_raw(server: Any, service: str, method: str, answer: bytes) -> None:
    """Serve one unary method that always answers ``answer``."""

    async def call(_request: bytes, _context: Any) -> bytes:
        return answer

    handler: Any = grpc.unary_unary_rpc_method_handler(call, None, None)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
