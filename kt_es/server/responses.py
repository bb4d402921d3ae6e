"""Answers in HTTP: problem documents for errors (RFC 9457), and whole answers as bytes.

``problem_of`` is the one place that maps an error to a status.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

from kt_es.api.codec import present_members
from kt_es.api.models import ProblemBody
from kt_es.api.operations import JSON_MEDIA, PROBLEM_MEDIA, ProblemReason
from kt_es.errors import (
    AccessDeniedError,
    DiskFullError,
    EquivocationError,
    KtError,
    MalformedError,
    RefusedError,
    StoreAwayError,
    UnavailableError,
)
from kt_es.server.asgi import Message, Receive
from kt_es.server.registration.claims import RegistrationError

Headers = list[tuple[bytes, bytes]]

# A stream of the directory, or the stream of its metadata (``StreamNames``).
_STREAM = re.compile(r"(?:\$\$)?kt_[a-z]+-[A-Za-z0-9_.-]*[A-Za-z0-9_-]")

# Statuses of refusals by reason. Every other refusal is a conflict with what the directory holds.
_REFUSED: Mapping[str, HTTPStatus] = {
    ProblemReason.MALFORMED: HTTPStatus.BAD_REQUEST,
    ProblemReason.UNAUTHORIZED: HTTPStatus.FORBIDDEN,
    ProblemReason.FOREIGN_ERASURE: HTTPStatus.FORBIDDEN,
    ProblemReason.REGISTRATION_REQUIRED: HTTPStatus.FORBIDDEN,
    ProblemReason.REGISTRATION_REFUSED: HTTPStatus.FORBIDDEN,
    ProblemReason.UNKNOWN_EPOCH: HTTPStatus.NOT_FOUND,
    ProblemReason.PRUNED_EPOCH: HTTPStatus.GONE,
    ProblemReason.OVERSIZE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ProblemReason.UNSUPPORTED_MEDIA: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
}


# RFC 9111 and RFC 8246; a year is the longest time that caches are asked for.
_LASTING = b"public, max-age=31536000, immutable"


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """An answer whose body is whole. If it ``lasts``, the same request always has this answer."""

    body: bytes
    media: str = JSON_MEDIA
    status: int = 200
    more: Headers = dataclasses.field(default_factory=list)  # further headers
    lasts: bool = False

    @property
    def headers(self) -> Headers:
        return [
            (b"content-length", b"%d" % len(self.body)),
            (b"content-type", self.media.encode()),
            (b"cache-control", _LASTING if self.lasts else b"no-store"),
            *self.more,
        ]


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """A failure to answer. ``more`` are further members of ``ProblemBody``.

    The encoded problem names no stream. Names of streams are for the operator, in the log of this process.
    """

    status: int
    reason: str
    detail: str
    field: str | None = None
    retry_after: float | None = None
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    allow: str | None = None  # the method that the address has

    @property
    def wait(self) -> int | None:
        """Whole seconds until the same request may be sent again; None if that does not help."""
        return None if self.retry_after is None else max(1, math.ceil(self.retry_after))

    @property
    def answer(self) -> Answer:
        """This problem as an answer, with ``Retry-After`` where repeating helps, in whole seconds."""
        more: Headers = []
        if (seconds := self.wait) is not None:
            more.append((b"retry-after", b"%d" % seconds))
        if self.allow is not None:
            more.append((b"allow", self.allow.encode()))
        return Answer(self.encode(), PROBLEM_MEDIA, self.status, more)

    def encode(self) -> bytes:
        return json.dumps(present_members(self.body)).encode()

    @property
    def body(self) -> ProblemBody:
        """This problem as a document, which names no stream."""
        return ProblemBody(
            f"urn:kt-es:problem:{self.reason}",
            HTTPStatus(self.status).phrase,
            self.status,
            without_streams(self.detail),
            self.reason,
            self.field,
            **{name: _without_streams_in(value) for name, value in self.more.items()},
        )


def without_streams(text: str) -> str:
    """Return ``text`` with no stream of a directory named in it."""
    return _STREAM.sub("a stream of the event log", text)


def _without_streams_in(value: Any) -> Any:
    if isinstance(value, str):
        return without_streams(value)
    return tuple(map(without_streams, value)) if isinstance(value, tuple) else value


class NotNowError(UnavailableError):
    """An outage whose message is for clients. Messages of the log's client name streams and hosts."""


def stopped(failure: KtError) -> str:
    """Return why nothing is answered after ``failure``, in words for clients."""
    if isinstance(failure, EquivocationError):
        return (
            "this front end has stopped serving, as its directory is convicted: it signed two histories. "
            "Do not trust it, and ask its operator or a monitor for the evidence"
        )
    return "this front end has stopped serving"


AWAY = "the event log cannot be reached"
STORE_AWAY = "the shared store cannot be used"
STORE_ROWS = "rows of the shared store are missing or wrong"


def denial(error: AccessDeniedError) -> str:
    """Describe a right that the log denies, for clients: without the stream and the log's own message."""
    if not error.right:
        return "the event log refuses the user of this front end"
    stream = "$all" if error.stream == "$all" else "a stream of the event log"
    return f"the right {error.right} to {stream} is missing"


def problem_of(error: KtError) -> Problem:
    """Return the problem document of an error that a handler raised.

    A lasting error that is no fault of the request becomes a 500 without details. The log of this process has
    the details. It also has the details of an outage, unless the error is a ``NotNowError``.
    """
    match error:
        case AccessDeniedError():
            return _unavailable(f"{denial(error)}; try again later", 5.0)
        case DiskFullError():
            # The error names a directory of this machine. The log names it as well.
            return _unavailable("the disk of this front end is full; try again later", error.retry_after)
        case MalformedError():
            return Problem(HTTPStatus.BAD_REQUEST, ProblemReason.MALFORMED, str(error), error.what)
        case RefusedError():
            status = _REFUSED.get(error.reason, HTTPStatus.CONFLICT)
            more = {"ways": error.ways} if isinstance(error, RegistrationError) and error.ways else {}
            return Problem(status, error.reason, error.problem, error.field, more=more)
        case StoreAwayError():
            return _unavailable(f"{STORE_AWAY}; try again later", error.retry_after)
        case UnavailableError():
            detail = str(error) if isinstance(error, NotNowError) else f"{AWAY}; try again later"
            return _unavailable(detail, error.retry_after)
    return internal_problem()


def _unavailable(detail: str, retry_after: float) -> Problem:
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, ProblemReason.UNAVAILABLE, detail, retry_after=retry_after)


def internal_problem() -> Problem:
    detail = "the front end failed to answer; its log says why"
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, ProblemReason.INTERNAL, detail)


def too_many(wait: float) -> Problem:
    """Return the problem for a client that asks more often than its limit allows. ``wait`` is in seconds."""
    detail = "this address or its network asks too often"
    return Problem(HTTPStatus.TOO_MANY_REQUESTS, ProblemReason.TOO_MANY_REQUESTS, detail, retry_after=wait)


def http_problem(status: int, detail: str | None = None, allow: str | None = None) -> Problem:
    """Return the problem of a plain HTTP status: a wrong path or method, for instance."""
    if status == HTTPStatus.BAD_REQUEST:
        return Problem(status, ProblemReason.MALFORMED, detail or "the body cannot be read as JSON")
    phrase = HTTPStatus(status).phrase
    return Problem(status, phrase.lower().replace(" ", "-"), detail or phrase, allow=allow)


def encode_head(status: int, headers: Headers, *, keep_alive: bool) -> bytes:
    """Return the status line and headers, with the empty line after them."""
    lines = [_status_line(status), _date(int(time.time()))]
    lines += [b"%b: %b\r\n" % header for header in headers]
    lines.append(b"connection: keep-alive\r\n\r\n" if keep_alive else b"connection: close\r\n\r\n")
    return b"".join(lines)


def problem_answer(problem: Problem) -> bytes:
    """Return a whole answer, after which the connection ends."""
    answer = problem.answer
    return encode_head(answer.status, answer.headers, keep_alive=False) + answer.body


def retry_after(headers: Headers) -> float:
    """Return the seconds that an answer asks its client to wait."""
    return next((float(value) for name, value in headers if name == b"retry-after"), 1.0)


@functools.lru_cache
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()


@functools.lru_cache(2)
def _date(now: int) -> bytes:
    return f"date: {formatdate(now, usegmt=True)}\r\n".encode()


def whole_body(body: bytes) -> Receive:
    """Return ASGI's ``receive`` of a request whose body has arrived.

    A second call waits for ever: a client that hangs up cancels the task, and there is no other notice.
    """
    pending = [body]

    async def receive() -> Message:
        if not pending:
            await asyncio.get_running_loop().create_future()
        return {"type": "http.request", "body": pending.pop(), "more_body": False}

    return receive


class WholeAnswer:
    """ASGI's ``send``: calls ``write`` with status, headers and body when the answer is whole.

    If the answer is a stream, ``stream`` is called with its head and with each part instead.
    """

    def __init__(
        self,
        write: Callable[[int, Headers, bytes], Awaitable[None]],
        stream: Callable[[bytes], Awaitable[None]] | None = None,
    ) -> None:
        self._write = write
        self._stream = stream
        self._streams = False
        self._status = 500
        self._headers: Headers = []
        self._parts: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = list(message.get("headers", ()))
            if self._stream is not None and message.get("streams", False):
                self._streams = True
                await self._stream(encode_head(self._status, self._headers, keep_alive=False))
            return
        if self._streams and self._stream is not None:
            if body := message.get("body", b""):
                await self._stream(body)
            return
        self._parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            await self._write(self._status, self._headers, b"".join(self._parts))
