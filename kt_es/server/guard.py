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
from collections.abc import Awaitable, Callable, Collection, Sequence
from urllib.parse import parse_qsl

import structlog
from prometheus_client import Counter, Histogram

from kt_es.api.operations import HEALTH, JSON_MEDIA, ProblemReason
from kt_es.errors import RefusedError
from kt_es.server.asgi import Receive, Scope, Send
from kt_es.server.limits import MAX_DEPTH, MAX_MEMBERS, route_of
from kt_es.server.responses import Answer, Headers, Problem, internal_problem
from kt_es.server.slots import Slots
from kt_es.server.streams import EventStream

_LOG = structlog.get_logger("kt_es.server")
_SLOT = "kt.slot"
_LASTS = "kt.lasts"  # set for a stream, whose time is not observed

# A string, closed or not, or what opens or separates members. Possessive, so that time is linear.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[,\[{]', re.DOTALL)


class AmbiguousError(ValueError):
    """The message says what is ambiguous."""


def oversized_shape(body: bytes, most: int = MAX_MEMBERS, deepest: int = MAX_DEPTH) -> str | None:
    """Return the problem of a body with more members (``most``) or objects and arrays than it may have.

    Returns None if it has not.

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
        if members >= most or strings > 2 * most:
            return f"the body has more than {most} members"
        if levels > deepest:
            return f"the body has more than {deepest} objects and arrays"
    return None


def read_body(body: bytes, members: int = MAX_MEMBERS, levels: int = MAX_DEPTH) -> object:
    """Read a body of at most ``members`` members, and ``levels`` objects and arrays, as JSON.

    Raises:
        AmbiguousError: The body is too deep or too large, or two readers may read it differently.
        RefusedError: It is not JSON.
    """
    shape = oversized_shape(body, members, levels)
    if shape is not None:
        raise AmbiguousError(shape)
    try:
        return json.loads(
            _text(body), object_pairs_hook=_once, parse_int=_integer, parse_constant=_refuse_constant
        )
    except AmbiguousError:
        raise
    except (ValueError, RecursionError):
        raise RefusedError(ProblemReason.MALFORMED, "the body is not JSON; send one JSON object") from None


def read_query(query: bytes, known: Collection[str] | None) -> dict[str, str]:
    """Read the parameters of an address. ``known`` are all that there can be, None for any.

    Raises ``AmbiguousError`` if one is given twice, and ``RefusedError`` for an unknown one.
    """
    if not query:
        return {}
    given = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    found = dict(given)
    if len(found) < len(given):
        raise AmbiguousError("the address has a parameter twice; give each parameter once")
    if known is not None and not found.keys() <= set(known):
        # The message does not repeat the parameter, which may be a label.
        only = f"only the parameters {', '.join(known)}" if known else "no parameters"
        raise RefusedError(ProblemReason.MALFORMED, f"this address takes {only}")
    return found


def check_media(headers: Headers) -> None:
    """Raise ``RefusedError`` unless there is one content type, which is that of JSON in UTF-8."""
    values = [value for name, value in headers if name == b"content-type"]
    media, _, parameters = values[0].decode("latin-1").partition(";") if len(values) == 1 else ("", "", "")
    charset = parameters.strip().lower().replace('"', "")
    is_json = media.strip().lower() == JSON_MEDIA and charset in ("", "charset=utf-8")
    # This front end decodes no content coding, so a reader that does would see another body.
    codings = [value for name, value in headers if name == b"content-encoding"]
    if not is_json or any(coding.strip().lower() != b"identity" for coding in codings):
        problem = f"send JSON in UTF-8 as content-type {JSON_MEDIA}"
        raise RefusedError(ProblemReason.UNSUPPORTED_MEDIA, problem)


def _text(body: bytes) -> str:
    """Return the body as UTF-8 (RFC 8259, 8.1)."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise AmbiguousError("the body is not UTF-8; encode it as UTF-8") from None
    if text.startswith("\ufeff"):
        raise AmbiguousError("the body begins with a byte order mark; leave it out")
    return text


def _once(members: Sequence[tuple[str, object]]) -> dict[str, object]:
    found = dict(members)
    if len(found) < len(members):
        raise AmbiguousError("the body has a member twice; give each member once")
    return found


def _integer(digits: str) -> int:
    if digits == "-0":
        raise AmbiguousError("the body has the number -0; write 0")
    return int(digits)


def _refuse_constant(name: str) -> None:
    raise AmbiguousError(f"the body has {name}, which is no JSON; give a number")


class Guard:
    """The application of a front end over ``answer``: ASGI, for a connection that has whole requests.

    Args:
        answer: Answers a request, given its scope and its body. It sets ``route`` in the scope.
        slots: The requests under way.
        seconds: Is observed under the label ``route``.
        refused: Counts refusals by reason.
    """

    def __init__(
        self,
        answer: Callable[[Scope, bytes], Awaitable[Answer | EventStream]],
        slots: Slots,
        seconds: Histogram,
        refused: Counter,
    ) -> None:
        self._application = answer
        self._slots = slots
        self._seconds = seconds
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        try:
            await self._answer(scope, (await receive())["body"], send)
        finally:
            if _LASTS not in scope:
                self._seconds.labels(_route(scope)).observe(time.perf_counter() - started)

    async def _answer(self, scope: Scope, body: bytes, send: Send) -> None:
        path = scope["path"]
        if path == HEALTH.path:
            answer = await self._application(scope, body)
            if isinstance(answer, Answer):
                await _send(send, answer)
            return
        route = route_of(path)
        client = scope["client"][0] if scope.get("client") else ""
        slot = self._slots.take(client, route, len(body))
        if isinstance(slot, Problem):
            await _send(send, slot.answer)
            return
        scope[_SLOT] = slot
        try:
            answer = await self._guarded(scope, body)
            # A client that does not read its answer must not keep a slot from others.
            slot.release()
            if isinstance(answer, EventStream):
                scope[_LASTS] = True
                await answer.send(send)
            else:
                await _send(send, answer)
        finally:
            slot.end()

    async def _guarded(self, scope: Scope, body: bytes) -> Answer | EventStream:
        try:
            return await self._application(scope, body)
        except AmbiguousError as error:
            self._refused.labels("malformed").inc()
            return Problem(400, ProblemReason.MALFORMED, str(error)).answer
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
            return internal_problem().answer


def charge_slot(scope: Scope, cost: float) -> None:
    """Charge the client of a request for work that shows only in its body; ``cost`` is in lookups."""
    slot = scope.get(_SLOT)
    if slot is not None:
        slot.charge(cost)


def release_slot(scope: Scope) -> None:
    """Give the slot of a request to others, because it only waits from now on."""
    slot = scope.get(_SLOT)
    if slot is not None:
        slot.release()


def _route(scope: Scope) -> str:
    """Return the template of the route, which has no part of the request."""
    return str(getattr(scope.get("route"), "path", "other"))


async def _send(send: Send, answer: Answer) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body})
