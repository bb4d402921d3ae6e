"""ASGI middleware around the application: limits, the time of each request, and unexpected errors.

The guard reads a body up to the limit of its route. Then the request takes a slot among those under way. It
gives the slot back when it begins to wait for a verdict (``release_slot``) or to send its answer. A large
answer has a second slot until it is sent. The log names the method and the route of a request, nothing else.
"""

from __future__ import annotations

import time
import traceback
from http import HTTPStatus

import structlog
from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kt_es.api.operations import HEALTH, ProblemReason
from kt_es.server import limits
from kt_es.server.clients import Clients
from kt_es.server.limits import Route, route_of
from kt_es.server.problems import Problem, internal_problem, too_many
from kt_es.server.responses import problem_headers, whole_body
from kt_es.server.strict import ambiguity, oversized_shape

_SLOT = "kt.slot"

_LOG = structlog.get_logger("kt_es.server")


class Guard:
    """Wraps ``app``; ``seconds`` is observed under the label ``route``, ``refused`` counts by reason."""

    def __init__(self, app: ASGIApp, clients: Clients, seconds: Histogram, refused: Counter) -> None:
        self._app = app
        self._clients = clients
        self._seconds = seconds
        self._refused = refused
        self.requests = 0
        self.large = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        try:
            await self._answer(scope, receive, send)
        finally:
            self._seconds.labels(_route(scope)).observe(time.perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = route_of(scope["path"])
        body = await _read_body(receive, route.body)
        if body is None:
            too_large = f"the body must have at most {route.body} bytes"
            await self._refuse(send, "oversize", Problem(413, ProblemReason.OVERSIZE, too_large))
            return
        if scope["path"] == HEALTH.path:
            await self._app(scope, whole_body(body), send)
            return
        client = scope["client"][0] if scope.get("client") else ""
        wait = self._clients.enter(client, route, len(body))
        if wait is not None:
            await self._refuse(send, "rate", too_many(wait))
            return
        slot = _Slot(self, client, route)
        try:
            if self.requests > limits.MAX_REQUESTS or self.large > limits.MAX_LARGE:
                busy = Problem(
                    503, ProblemReason.UNAVAILABLE, "this front end has too many requests", retry_after=1.0
                )
                await self._refuse(send, "busy", busy)
                return
            # After the check of the rate, because looking at a body costs time.
            shape = oversized_shape(body) or ambiguity(scope, body)
            if shape is not None:
                await self._refuse(send, "malformed", Problem(400, ProblemReason.MALFORMED, shape))
                return
            await self._call({**scope, _SLOT: slot}, scope, whole_body(body), send)
        finally:
            slot.release()
            slot.release_large()

    async def _call(self, scope: Scope, outer: Scope, receive: Receive, send: Send) -> None:
        sent = False

        async def watched(message: Message) -> None:
            nonlocal sent
            sent = True
            # A client that does not read its answer must not keep a slot from others.
            scope[_SLOT].release()
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:  # noqa: BLE001 - the client learns nothing about any such error
            # The message of the error may hold parts of the request, so it is not logged.
            where = traceback.extract_tb(error.__traceback__)[-1]
            _LOG.error(
                "a request failed",
                method=scope["method"],
                route=_route(scope),
                error=type(error).__name__,
                at=f"{where.name}:{where.lineno}",
            )
            if not sent:
                await _send_problem(send, internal_problem())
        finally:
            outer["route"] = scope.get("route")

    async def _refuse(self, send: Send, why: str, problem: Problem) -> None:
        self._refused.labels(why).inc()
        await _send_problem(send, problem)


class _Slot:
    """The slot of one request among those under way. Releasing it twice does nothing."""

    def __init__(self, guard: Guard, client: str, route: Route) -> None:
        self._guard = guard
        self._client = client
        self._request = True
        self._large = route.large
        guard.requests += 1
        guard.large += route.large

    def release(self) -> None:
        if self._request:
            self._request = False
            self._guard.requests -= 1
            self._guard._clients.leave(self._client, request=True)

    def release_large(self) -> None:
        if self._large:
            self._large = False
            self._guard.large -= 1
            self._guard._clients.leave(self._client, large=True)


def release_slot(scope: Scope) -> None:
    """Give the slot of a request to others, because it only waits from now on."""
    slot = scope.get(_SLOT)
    if slot is not None:
        slot.release()


def _route(scope: Scope) -> str:
    """The template of the route, which has no part of the request."""
    return str(getattr(scope.get("route"), "path", "other"))


async def _read_body(receive: Receive, limit: int) -> bytes | None:
    """Read the whole body; None as soon as it is too large."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _send_problem(send: Send, problem: Problem) -> None:
    body = problem.encode()
    headers = problem_headers(problem, body)
    # The rest of a body that is too large stays unread on its connection.
    if problem.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
