"""The guard in front of the application: it refuses clients beyond their limits and ambiguous requests.

A request that two readers may read differently is refused: a proxy, a log and this front end must see the
same request. Bodies larger than any request, unknown parameters and content types other than JSON are
refused, too.

A body arrives whole, in one message and within the limit of its route (``Incoming``). The request takes a
slot among those under way. It gives the slot back when it begins to wait for a verdict (``release_slot``) or
to send its answer. A large answer has a second slot until it is sent. The log names the method and the route
of a request, nothing else.
"""

from __future__ import annotations

import json
import re
import time
import traceback
from collections.abc import Sequence
from urllib.parse import parse_qsl

import structlog
from fastapi import Request
from fastapi.routing import APIRoute
from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kt_es.api.operations import HEALTH, JSON_MEDIA, METRICS, READY, ProblemReason
from kt_es.errors import RefusedError
from kt_es.server import limits
from kt_es.server.clients import Clients
from kt_es.server.limits import MAX_DEPTH, MAX_MEMBERS, Route, route_of
from kt_es.server.responses import Problem, internal_problem, problem_headers, too_many, whole_body

_LOG = structlog.get_logger("kt_es.server")
_SLOT = "kt.slot"

# Monitoring tools add parameters of their own, and no answer depends on them.
_LENIENT = (HEALTH.path, METRICS.path, READY.path)

# A string, closed or not, or what opens or separates members. Possessive, so that time is linear.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[,\[{]', re.DOTALL)


class _AmbiguousError(ValueError):
    """The message says what is ambiguous."""


def check_request(request: Request) -> None:
    """Raise ``RefusedError`` for an unknown parameter, or for a body whose content type is not JSON."""
    route = request.scope.get("route")
    if not isinstance(route, APIRoute) or route.path in _LENIENT:
        return
    if route.body_field is not None:
        check_media(request)
    known = sorted(parameter.alias for parameter in route.dependant.query_params)
    given = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    if any(name not in known for name, _ in given):
        # The message does not repeat the parameter, which may be a label.
        only = "no parameters" if not known else f"only the parameters {', '.join(known)}"
        raise RefusedError(ProblemReason.MALFORMED, f"this address takes {only}")


def check_media(request: Request) -> None:
    """Raise ``RefusedError`` unless there is one content type, which is that of JSON in UTF-8."""
    values = request.headers.getlist("content-type")
    media, _, parameters = values[0].partition(";") if len(values) == 1 else ("", "", "")
    charset = parameters.strip().lower().replace('"', "")
    is_json = media.strip().lower() == JSON_MEDIA and charset in ("", "charset=utf-8")
    # This front end decodes no content coding, so a reader that does would see another body.
    codings = request.headers.getlist("content-encoding")
    if not is_json or any(coding.strip().lower() != "identity" for coding in codings):
        problem = f"send JSON in UTF-8 as content-type {JSON_MEDIA}"
        raise RefusedError(ProblemReason.UNSUPPORTED_MEDIA, problem)


def oversized_shape(body: bytes) -> str | None:
    """Return the problem of a body with more members or levels than any request has, None if it has not.

    The body is read up to the first excess. Later steps find out whether it is JSON.
    """
    strings = members = levels = 0
    for found in _TOKEN.finditer(body):
        match body[found.start()]:
            case 0x22:
                strings += 1
            case 0x2C:
                members += 1
            case _:
                levels += 1
        if members >= MAX_MEMBERS or strings > 2 * MAX_MEMBERS:
            return f"the body has more than {MAX_MEMBERS} members"
        if levels > MAX_DEPTH:
            return f"the body has more than {MAX_DEPTH} objects and arrays"
    return None


def ambiguity(scope: Scope, body: bytes) -> str | None:
    """Return the ambiguity in the query or body of a request, None if there is none.

    Later steps find other faults.
    """
    query = scope.get("query_string", b"").decode("latin-1")
    names = [name for name, _ in parse_qsl(query, keep_blank_values=True)]
    if len(set(names)) < len(names):
        return "the address has a parameter twice; give each parameter once"
    if not body or not _is_json(scope):
        return None
    try:
        json.loads(
            _text(body), object_pairs_hook=_check_once, parse_int=_integer, parse_constant=_refuse_constant
        )
    except _AmbiguousError as error:
        return str(error)
    except (ValueError, RecursionError):
        return None
    return None


def _is_json(scope: Scope) -> bool:
    return any(name == b"content-type" and b"json" in value.lower() for name, value in scope["headers"])


def _text(body: bytes) -> str:
    """Return the body as UTF-8 (RFC 8259, 8.1)."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise _AmbiguousError("the body is not UTF-8; encode it as UTF-8") from None
    if text.startswith("\ufeff"):
        raise _AmbiguousError("the body begins with a byte order mark; leave it out")
    return text


def _check_once(members: Sequence[tuple[str, object]]) -> None:
    if len({name for name, _ in members}) < len(members):
        raise _AmbiguousError("the body has a member twice; give each member once")


def _integer(digits: str) -> int:
    if digits == "-0":
        raise _AmbiguousError("the body has the number -0; write 0")
    return int(digits)


def _refuse_constant(name: str) -> None:
    raise _AmbiguousError(f"the body has {name}, which is no JSON; give a number")


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
        started = time.perf_counter()
        try:
            await self._answer(scope, receive, send)
        finally:
            self._seconds.labels(_route(scope)).observe(time.perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = route_of(scope["path"])
        body = (await receive())["body"]
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
    """Return the template of the route, which has no part of the request."""
    return str(getattr(scope.get("route"), "path", "other"))


async def _send_problem(send: Send, problem: Problem) -> None:
    body = problem.encode()
    headers = problem_headers(problem, body)
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
