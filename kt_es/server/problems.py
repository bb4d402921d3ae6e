"""Errors as problem documents (RFC 9457): the one place that maps an error to a status."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from http import HTTPStatus

from kt_es.errors import (
    AccessDeniedError,
    DiskFullError,
    KtError,
    MalformedError,
    RefusedError,
    UnavailableError,
)

MEDIA_TYPE = "application/problem+json"

ALL_STREAM = "$all"
UNKNOWN_EPOCH = "unknown-epoch"

# A stream of the directory, or the stream of its metadata (``StreamNames``).
_STREAM = re.compile(r"(?:\$\$)?kt_[a-z]+-[A-Za-z0-9_.-]*[A-Za-z0-9_-]")

# By the reason of a refusal; the others are conflicts with what the directory holds.
_REFUSED = {
    "malformed": HTTPStatus.BAD_REQUEST,
    "unauthorized": HTTPStatus.FORBIDDEN,
    "foreign-erasure": HTTPStatus.FORBIDDEN,
    UNKNOWN_EPOCH: HTTPStatus.NOT_FOUND,
    "oversize": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """What is answered instead of an answer. ``more`` are members beside those of the RFC.

    Encoded, it names no stream: what stands in the event log is for the operator, whose log has the names.
    """

    status: int
    reason: str
    detail: str
    field: str | None = None
    retry_after: float | None = None
    more: Mapping[str, object] = dataclasses.field(default_factory=dict)

    @property
    def headers(self) -> dict[str, str]:
        """``Retry-After`` where repeating helps, in whole seconds."""
        if self.retry_after is None:
            return {}
        return {"retry-after": str(max(1, math.ceil(self.retry_after)))}

    def encode(self) -> bytes:
        body: dict[str, object] = {
            "type": f"urn:kt-es:problem:{self.reason}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": without_streams(self.detail),
            "reason": self.reason,
        }
        if self.field is not None:
            body["field"] = self.field
        more = {name: _without_streams_in(value) for name, value in self.more.items()}
        return json.dumps({**body, **more}).encode()


def without_streams(text: str) -> str:
    """``text`` with no stream of a directory named in it."""
    return _STREAM.sub("a stream of the event log", text)


def _without_streams_in(value: object) -> object:
    if isinstance(value, str):
        return without_streams(value)
    if isinstance(value, list):
        return [_without_streams_in(part) for part in value]
    return value


class NotNowError(UnavailableError):
    """An outage whose sentence is for clients. Those of the log's client name streams and hosts."""


AWAY = "the event log cannot be reached"


def denial(error: AccessDeniedError) -> str:
    """What a client may know of a right that the log denies: neither the stream nor the log's own words."""
    if not error.right:
        return "the event log refuses the user of this front end"
    stream = ALL_STREAM if error.stream == ALL_STREAM else "a stream of the event log"
    return f"the right {error.right} to {stream} is missing"


def problem_of(error: KtError) -> Problem:
    """The problem document of an error that a handler raised.

    What is no fault of the request and passes by no repeating is a 500 that says nothing else: its
    details are for the log. So are those of an outage that another module than those of the server raised.
    """
    match error:
        case AccessDeniedError():
            detail = f"{denial(error)}; lookups go on, submit again later"
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", detail, retry_after=5.0)
        case DiskFullError():
            # It names a directory of this machine, which its log does as well.
            detail = "the disk of this front end is full; try again later"
            return Problem(
                HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", detail, retry_after=error.retry_after
            )
        case MalformedError():
            return Problem(HTTPStatus.BAD_REQUEST, "malformed", str(error), error.what)
        case RefusedError():
            status = _REFUSED.get(error.reason, HTTPStatus.CONFLICT)
            return Problem(status, error.reason, error.problem, error.field)
        case UnavailableError():
            detail = str(error) if isinstance(error, NotNowError) else f"{AWAY}; try again later"
            return Problem(
                HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", detail, retry_after=error.retry_after
            )
    return internal_problem()


def internal_problem() -> Problem:
    return Problem(
        HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "the front end failed to answer; its log says why"
    )


def too_many(wait: float) -> Problem:
    """For a client that asks more often than its limit allows; ``wait`` in seconds."""
    detail = "this address or its network asks too often"
    return Problem(HTTPStatus.TOO_MANY_REQUESTS, "too-many-requests", detail, retry_after=wait)


def http_problem(status: int, detail: str | None = None) -> Problem:
    """The problem of a plain HTTP status: a wrong path or method, for instance."""
    if status == HTTPStatus.BAD_REQUEST:
        return Problem(status, "malformed", detail or "the body cannot be read as JSON")
    phrase = HTTPStatus(status).phrase
    return Problem(status, phrase.lower().replace(" ", "-"), detail or phrase)
