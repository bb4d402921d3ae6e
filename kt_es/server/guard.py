"""What stands around the whole application: limits, the time of each request, the last resort.

Pure ASGI: a body is read here, up to the limit of its route, before anything else looks at it. Only then does
the request take a place among those under way, and it leaves that place when it begins to wait for a verdict
(``leave_place``) or to send its answer; that of a large answer, when it is sent. Nothing of a request is ever
logged but its method and its route.
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
from kt_es.server.responses import problem_headers
from kt_es.server.strict import ambiguity, oversized_shape

_PLACE = "kt.place"

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
            await self._app(scope, _replayed(body, receive), send)
            return
        client = scope["client"][0] if scope.get("client") else ""
        wait = self._clients.enter(client, route, len(body))
        if wait is not None:
            await self._refuse(send, "rate", too_many(wait))
            return
        place = _Place(self, client, route)
        try:
            if self.requests > limits.MAX_REQUESTS or self.large > limits.MAX_LARGE:
                busy = Problem(
                    503, ProblemReason.UNAVAILABLE, "this front end has too many requests", retry_after=1.0
                )
                await self._refuse(send, "busy", busy)
                return
            # Behind the rate: looking at a body costs, too.
            shape = oversized_shape(body) or ambiguity(scope, body)
            if shape is not None:
                await self._refuse(send, "malformed", Problem(400, ProblemReason.MALFORMED, shape))
                return
            await self._call({**scope, _PLACE: place}, scope, _replayed(body, receive), send)
        finally:
            place.leave()
            place.leave_large()

    async def _call(self, scope: Scope, outer: Scope, receive: Receive, send: Send) -> None:
        sent = False

        async def watched(message: Message) -> None:
            nonlocal sent
            sent = True
            # A client that does not read its answer keeps nobody else from theirs.
            scope[_PLACE].leave()
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets no internals of it
            # Without its message: that may hold what the request said.
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


class _Place:
    """The place of one request among those under way, to be left once."""

    def __init__(self, guard: Guard, client: str, route: Route) -> None:
        self._guard = guard
        self._client = client
        self._request = True
        self._large = route.large
        guard.requests += 1
        guard.large += route.large

    def leave(self) -> None:
        if self._request:
            self._request = False
            self._guard.requests -= 1
            self._guard._clients.leave(self._client, request=True)

    def leave_large(self) -> None:
        if self._large:
            self._large = False
            self._guard.large -= 1
            self._guard._clients.leave(self._client, large=True)


def leave_place(scope: Scope) -> None:
    """This request works no more, it waits: another one may have its place."""
    place = scope.get(_PLACE)
    if place is not None:
        place.leave()


def _route(scope: Scope) -> str:
    """The route's template, which holds nothing of the request."""
    return str(getattr(scope.get("route"), "path", "other"))


async def _read_body(receive: Receive, limit: int) -> bytes | None:
    """The whole body, None as soon as it is too large."""
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


def _replayed(body: bytes, receive: Receive) -> Receive:
    pending: Message | None = {"type": "http.request", "body": body, "more_body": False}

    async def replay() -> Message:
        nonlocal pending
        if pending is None:
            return await receive()
        message, pending = pending, None
        return message

    return replay


async def _send_problem(send: Send, problem: Problem) -> None:
    body = problem.encode()
    headers = problem_headers(problem, body)
    # What is left of a body that was too large stays unread on its connection.
    if problem.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
