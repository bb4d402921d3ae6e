"""Errors as problem documents (RFC 9457): the one place that maps an error to a status."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from kt_es.api.codec import present_members
from kt_es.api.models import ProblemBody
from kt_es.api.operations import ProblemReason
from kt_es.errors import (
    AccessDeniedError,
    DiskFullError,
    KtError,
    MalformedError,
    RefusedError,
    UnavailableError,
)

# A stream of the directory, or the stream of its metadata (``StreamNames``).
_STREAM = re.compile(r"(?:\$\$)?kt_[a-z]+-[A-Za-z0-9_.-]*[A-Za-z0-9_-]")

# Statuses of refusals by reason. Every other refusal is a conflict with what the directory holds.
_REFUSED: Mapping[str, HTTPStatus] = {
    ProblemReason.MALFORMED: HTTPStatus.BAD_REQUEST,
    ProblemReason.UNAUTHORIZED: HTTPStatus.FORBIDDEN,
    ProblemReason.FOREIGN_ERASURE: HTTPStatus.FORBIDDEN,
    ProblemReason.UNKNOWN_EPOCH: HTTPStatus.NOT_FOUND,
    ProblemReason.OVERSIZE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ProblemReason.UNSUPPORTED_MEDIA: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
}


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

    @property
    def headers(self) -> dict[str, str]:
        """``Retry-After`` where repeating helps, in whole seconds."""
        if self.retry_after is None:
            return {}
        return {"retry-after": str(max(1, math.ceil(self.retry_after)))}

    def encode(self) -> bytes:
        body = ProblemBody(
            f"urn:kt-es:problem:{self.reason}",
            HTTPStatus(self.status).phrase,
            self.status,
            without_streams(self.detail),
            self.reason,
            self.field,
            **{name: _without_streams_in(value) for name, value in self.more.items()},
        )
        return json.dumps(present_members(body)).encode()


def without_streams(text: str) -> str:
    """``text`` with no stream of a directory named in it."""
    return _STREAM.sub("a stream of the event log", text)


def _without_streams_in(value: Any) -> Any:
    if isinstance(value, str):
        return without_streams(value)
    return tuple(map(without_streams, value)) if isinstance(value, tuple) else value


class NotNowError(UnavailableError):
    """An outage whose message is for clients. Messages of the log's client name streams and hosts."""


AWAY = "the event log cannot be reached"


def denial(error: AccessDeniedError) -> str:
    """Describe a right that the log denies, for clients: without the stream and the log's own message."""
    if not error.right:
        return "the event log refuses the user of this front end"
    stream = "$all" if error.stream == "$all" else "a stream of the event log"
    return f"the right {error.right} to {stream} is missing"


def problem_of(error: KtError) -> Problem:
    """The problem document of an error that a handler raised.

    An error that is no fault of the request and that does not pass is a 500 without details. The log has
    them, and the details of an outage, unless it is a ``NotNowError``.
    """
    match error:
        case AccessDeniedError():
            return _unavailable(f"{denial(error)}; lookups go on, submit again later", 5.0)
        case DiskFullError():
            # The error names a directory of this machine. The log names it as well.
            return _unavailable("the disk of this front end is full; try again later", error.retry_after)
        case MalformedError():
            return Problem(HTTPStatus.BAD_REQUEST, ProblemReason.MALFORMED, str(error), error.what)
        case RefusedError():
            status = _REFUSED.get(error.reason, HTTPStatus.CONFLICT)
            return Problem(status, error.reason, error.problem, error.field)
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
    """For a client that asks more often than its limit allows; ``wait`` in seconds."""
    detail = "this address or its network asks too often"
    return Problem(HTTPStatus.TOO_MANY_REQUESTS, ProblemReason.TOO_MANY_REQUESTS, detail, retry_after=wait)


def http_problem(status: int, detail: str | None = None) -> Problem:
    """The problem of a plain HTTP status: a wrong path or method, for instance."""
    if status == HTTPStatus.BAD_REQUEST:
        return Problem(status, ProblemReason.MALFORMED, detail or "the body cannot be read as JSON")
    phrase = HTTPStatus(status).phrase
    return Problem(status, phrase.lower().replace(" ", "-"), detail or phrase)
