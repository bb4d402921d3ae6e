"""Each new head of a directory as the server sends it, verified before it is returned.

The server sends heads as events (docs/HTTP.md, "Reading"). An event has the proof that its log continues the
one before, so it needs no further request. The stream is opened again when it ends or fails, after the last
head. A server that sends nothing new for too long is noticed by the age of the last head.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeAlias

import httpx

from kt_es.api.codec import decode_json, decode_model, read_problem
from kt_es.api.heads import HEAD_EVENT, MAX_EVENT_DATA, HeadEventBody
from kt_es.api.models import HeadBody
from kt_es.api.operations import HEAD_EVENTS
from kt_es.client.heads import verify_freshness
from kt_es.client.session import DirectoryHead, Session
from kt_es.client.transport import AGAIN, Transport
from kt_es.client.trusted import Trusted, claimed_size
from kt_es.errors import MalformedError, RefusedError, UnavailableError, VerificationError
from kt_es.process.log_filters import without_password
from kt_es.process.outage import Backoff

PATIENCE = 60.0
SILENCE = 45.0
"""Seconds without a byte, after which the stream is opened again. A server breaks its silence earlier."""
_CONNECT = 10.0
_EVENT = "event of a head"


Heads: TypeAlias = Generator[DirectoryHead, None, None]


@dataclass(slots=True)
class _Progress:
    """The last epoch that the caller got or has, and its head if it got one here."""

    epoch: int | None
    head: DirectoryHead | None = None


class Following:
    """Follows the heads of one directory. Iterations in several threads are independent."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def heads(self, since: int | None = None, *, patience: float = PATIENCE) -> Heads:
        """Yield each head after the epoch ``since``, or from the latest one on, none left out, without end.

        The trusted state is stored before a head is returned.

        Raises:
            VerificationError: A head is not as it is signed, or the log does not continue.
            EquivocationError: Two signed statements contradict each other.
            StaleHeadError: No new head has come for longer than the directory promises.
            UnavailableError: The server cannot be reached for ``patience`` seconds.
        """
        progress = _Progress(since)
        backoff, failing = Backoff(0.1, 5.0), time.monotonic()
        while True:
            try:
                for head in self._connected(progress):
                    backoff, failing = Backoff(0.1, 5.0), time.monotonic()
                    yield head
                    failing = time.monotonic()
                problem = UnavailableError("the server ends each stream of heads at once")
            except UnavailableError as error:
                problem = error
            self._check_age(progress)
            if time.monotonic() >= failing + patience:
                raise problem
            time.sleep(backoff.pause())

    def _connected(self, progress: _Progress) -> Iterator[DirectoryHead]:
        """Yield the heads of one stream."""
        size = progress.epoch
        for event in self._events(progress):
            if progress.epoch is not None and event.epoch <= progress.epoch:
                raise VerificationError("map head", f"epoch {event.epoch} comes after epoch {progress.epoch}")
            for missed in range(event.epoch if progress.epoch is None else progress.epoch + 1, event.epoch):
                # The server sends no more than the latest one after a long absence.
                yield self._took(progress, self._session.head(missed, self._deadline(), fresh=False))
            yield self._took(progress, self._verified(event, size))
            size = claimed_size(event.latest_checkpoint)

    def _took(self, progress: _Progress, head: DirectoryHead) -> DirectoryHead:
        progress.epoch, progress.head = head.head.epoch, head
        return head

    def _verified(self, event: HeadEventBody, size: int | None) -> DirectoryHead:
        """Verify an event whose proof begins at the log of ``size``."""
        deadline = self._deadline()
        reply = HeadBody(
            event.epoch,
            event.smh,
            event.heads_checkpoint,
            event.mutations_checkpoint,
            event.inclusion,
            event.latest_checkpoint,
        )

        def check(trusted: Trusted) -> DirectoryHead:
            if trusted.size == (size or 0):
                return self._session.checked(trusted, reply, event.epoch, deadline, proof=event.consistency)
            if trusted.size <= claimed_size(event.latest_checkpoint):
                return self._session.checked(trusted, reply, event.epoch, deadline)
            # Another call has seen a later log meanwhile.
            return self._session.asked(trusted, event.epoch, deadline)

        return self._session.ask(check, deadline)

    def _events(self, progress: _Progress) -> Iterator[HeadEventBody]:
        since = "" if progress.epoch is None else f"?since={progress.epoch}"
        with _streamed(self._session.transport, f"{HEAD_EVENTS.path}{since}") as parts:
            reader = EventReader()
            for part in parts:
                found = [body for body in map(_head_in, reader.feed(part)) if body is not None]
                yield from found
                if not found:
                    self._check_age(progress)

    def _check_age(self, progress: _Progress) -> None:
        """Raise ``StaleHeadError`` if the last head is too old."""
        if progress.head is not None and progress.head.proven.latest:
            session = self._session
            verify_freshness(progress.head.head, progress.head.proven.config, session.now(), session.slack)

    def _deadline(self) -> float:
        return self._session.transport.deadline()


@contextmanager
def _streamed(transport: Transport, path: str) -> Iterator[Iterator[bytes]]:
    """Yield the parts of an answer that goes on. It fails after ``SILENCE`` seconds without a part.

    Raises ``UnavailableError`` if it cannot be had now or breaks off, and ``RefusedError``.
    """
    timeout, where = httpx.Timeout(SILENCE, connect=_CONNECT), transport.base_url
    try:
        with transport._http.stream("GET", path, timeout=timeout) as response:
            status = response.status_code
            if status != HTTPStatus.OK:
                # At most one part, since the whole may have no end.
                problem = read_problem(status, next(response.iter_bytes(MAX_EVENT_DATA), b""))
                if status in AGAIN or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise UnavailableError(f"{where} sends no heads now: {problem.detail}")
                raise RefusedError(problem.reason, problem.detail, problem.field)
            if response.headers.get("content-encoding", "identity") != "identity":
                raise MalformedError(f"answer to {path}", "is compressed, though that was not asked for")
            yield response.iter_bytes()
    except httpx.TransportError as error:
        cause = without_password(str(error)) or type(error).__name__
        raise UnavailableError(f"{where} does not answer: {cause}") from None


class EventReader:
    """Makes events of the bytes of a stream. Pure."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> Iterator[dict[str, str]]:
        """Yield the fields of each event that ``data`` completes; comments and empty events have none.

        Raises ``MalformedError`` for an event that is too large or not UTF-8.
        """
        self._data = (self._data + data).replace(b"\r\n", b"\n")
        while b"\n\n" in self._data:
            block, self._data = self._data.split(b"\n\n", 1)
            yield _fields(block)
        if len(self._data) > MAX_EVENT_DATA:
            raise MalformedError(_EVENT, f"is larger than {MAX_EVENT_DATA} bytes")


def _fields(block: bytes) -> dict[str, str]:
    try:
        text = block.decode()
    except UnicodeDecodeError:
        raise MalformedError(_EVENT, "is not UTF-8") from None
    fields: dict[str, str] = {}
    for line in text.split("\n"):
        name, _, value = line.partition(":")
        if name:
            value = value.removeprefix(" ")
            fields[name] = f"{fields[name]}\n{value}" if name == "data" and name in fields else value
    return fields


def _head_in(fields: dict[str, str]) -> HeadEventBody | None:
    """Return the head in the fields of an event; None if the event is of another type."""
    if fields.get("event") != HEAD_EVENT:
        return None
    body = decode_model(HeadEventBody, decode_json(fields.get("data", "").encode(), _EVENT))
    if fields.get("id") != str(body.epoch):
        raise MalformedError(_EVENT, "has an id that is not its epoch")
    return body
