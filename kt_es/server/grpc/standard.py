"""The services that tools know: ``grpc.health.v1`` and ``grpc.reflection``.

Their methods pass through ``Calls`` as the others do, so they have the same limits. The messages, and what
reflection answers, are those of grpcio-health-checking and grpcio-reflection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from google.protobuf import descriptor_pool  # type: ignore[import-untyped]
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from kt_es.server.endpoints.common import Frontend
from kt_es.server.feed import EpochFeed
from kt_es.server.grpc.calls import Call, Method
from kt_es.server.responses import Problem

HEALTH = "grpc.health.v1.Health"
REFLECTIONS = (reflection.SERVICE_NAME, "grpc.reflection.v1.ServerReflection")
"""Both versions have the same messages under two names."""

_LOOK = 1.0
"""Seconds after which a watch of the health looks again."""

_Status = health_pb2.HealthCheckResponse


class HealthMethods:
    """Answers what ``/readyz`` answers. ``services`` are the names that it knows, besides the empty one."""

    def __init__(self, frontend: Frontend, feed: EpochFeed, services: tuple[str, ...]) -> None:
        self._frontend = frontend
        self._feed = feed
        self._known = ("", *services)

    def methods(self) -> list[Method]:
        request = health_pb2.HealthCheckRequest
        return [
            Method(f"/{HEALTH}/Check", request, self._check),
            Method(f"/{HEALTH}/Watch", request, self._watch, lasts=True),
        ]

    def _status(self, service: str) -> int:
        if service not in self._known:
            return int(_Status.SERVICE_UNKNOWN)
        if self._feed.ended or self._frontend.troubles():
            return int(_Status.NOT_SERVING)
        return int(_Status.SERVING)

    async def _check(self, message: Any, _: Call) -> bytes | Problem:
        status = self._status(message.service)
        if status == _Status.SERVICE_UNKNOWN:
            known = ", ".join(name for name in self._known if name)
            return Problem(404, "not-found", f"must be empty or one of {known}", "service")
        return bytes(_Status(status=status).SerializeToString())

    async def _watch(self, message: Any, call: Call) -> None:
        told = None
        while True:
            ended = self._feed.ended
            status = self._status(message.service)
            if status != told:
                await call.send(_Status(status=status).SerializeToString())
                told = status
            if ended:
                return
            await self._feed.changed(_LOOK)


class ReflectionMethods:
    """Describes ``services`` to tools such as grpcurl, which need no .proto file then."""

    def __init__(self, services: tuple[str, ...]) -> None:
        self._servicer = reflection.aio.ReflectionServicer((*services, *REFLECTIONS), _Symbols())

    def methods(self) -> list[Method]:
        request = reflection_pb2.ServerReflectionRequest
        return [
            Method(f"/{service}/ServerReflectionInfo", request, self._info, lasts=True)
            for service in REFLECTIONS
        ]

    async def _info(self, first: Any, call: Call) -> None:
        answers = self._servicer.ServerReflectionInfo(_requests(first, call), None)
        async for answer in answers:
            await call.send(answer.SerializeToString())


class _Symbols:
    """The default pool of descriptors, which also finds the file of a method or of a field by its name.

    The protocol asks for that, and ``grpcurl describe`` for a method. protobuf's own pool in Python does not
    find them.
    """

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:  # noqa: N802 - the name is protobuf's
        """Return the descriptor of the file. Raises ``KeyError``."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            found = self._pool.FindFileContainingSymbol(symbol.rpartition(".")[0])
        for find in (self._pool.FindMethodByName, self._pool.FindFieldByName):
            with suppress(KeyError):
                find(symbol)
                return found
        raise KeyError(symbol)


async def _requests(request: Any, call: Call) -> AsyncIterator[Any]:
    """Yield the requests of a stream, each of which counts as a lookup of the client."""
    while request is not None:
        yield request
        await call.pay()
        request = await call.next(reflection_pb2.ServerReflectionRequest)
