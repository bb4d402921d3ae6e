"""Many appends over one long-lived call of the protocol: ``BatchAppend`` of the streams service.

A call costs more than an append does, on both sides. So a front end keeps one call open. Each append is one
message of this call and one message of its answer, and ``exchange`` has many appends under way at once.

The client library finds the leader of a cluster, and finds it again after a failure, in its own calls alone.
So the first append, and the first one after a failure, is such a call.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

import grpc

from kt_es.errors import KtError, UnavailableError, WrongRevisionError
from kt_es.eventstore import driver
from kt_es.eventstore.esdb_client import EsdbClient
from kt_es.eventstore.rights import WRITE, WRITE_METADATA
from kt_es.eventstore.streams import ANY, NO_STREAM, Append, NewEvent
from kt_es.eventstore.subscriptions import calling

METADATA = "$metadata"
# Ids of metadata events. A repeated append has the same id, so the server recognizes it.
_METADATA_IDS = uuid.UUID("5b0a4f0e-6c0b-5f5e-8f7e-0a1d5f1d7d55")

Outcome = KtError | None


def version_of(expected: int) -> int | driver.StreamState:
    """Return an expected revision as the client library names it."""
    if expected == NO_STREAM:
        return driver.StreamState.NO_STREAM
    return driver.StreamState.ANY if expected == ANY else expected


def driver_event(event: NewEvent, *, is_json: bool = False) -> driver.NewEvent:
    return driver.NewEvent(
        type=event.type,
        data=event.data,
        content_type="application/json" if is_json else "application/octet-stream",
        id=event.id,
    )


class Appending:
    """Makes many appends for one client. Any thread may call it; one exchange is under way at a time.

    Args:
        client: The client whose connection is used.
        first: Makes one append by a call of the client library.
        deadline: Seconds until an append without an answer is given up. Its outcome is unknown then.
        is_plain: Whether the connection is meant to be without TLS.
    """

    def __init__(
        self, client: EsdbClient, first: Callable[[Append], None], deadline: float, *, is_plain: bool
    ) -> None:
        self._client = client
        self._first = first
        self._deadline = deadline
        self._is_plain = is_plain
        self._exchanging = threading.Lock()
        self._call: _Call | None = None  # guarded by ``_exchanging``; ``end`` only reads it

    def exchange(self, appends: Sequence[Append]) -> list[Outcome]:
        """Make ``appends`` and return their outcomes. See ``EventLog.append_all``."""
        with self._exchanging:
            if self._call is not None and not self._call.has_ended:
                return self._over(self._call, appends)
            if not appends:
                return []
            outcome = self._alone(appends[0])
            if isinstance(outcome, UnavailableError):
                return [outcome] * len(appends)
            rest = appends[1:]
            if not rest:
                # A single append needs no call that stays open.
                return [outcome]
            try:
                self._call = self._calling(rest[0], lambda: _Call(self._client))
            except KtError as error:
                return [outcome, *[error] * len(rest)]
            return [outcome, *self._over(self._call, rest)]

    def end(self) -> None:
        """End the open call, from any thread. Appends without an answer have an unknown outcome."""
        call = self._call
        if call is not None:
            call.end()

    def _alone(self, append: Append) -> Outcome:
        try:
            self._first(append)
        except KtError as error:
            return error
        return None

    def _over(self, call: _Call, appends: Sequence[Append]) -> list[Outcome]:
        # Most appends of metadata set the same ACL, so it is encoded once.
        encoded: dict[int, bytes] = {}
        requests = [_request(append, self._deadline, encoded) for append in appends]
        answers = call.exchange(requests, self._deadline)
        return [self._outcome(call, *each) for each in zip(appends, requests, answers, strict=True)]

    def _outcome(self, call: _Call, append: Append, request: Any, answer: Any) -> Outcome:
        if answer is not None and driver.is_appended(answer):
            return None
        stream, version = _target(append), version_of(append.expected)

        def read() -> None:
            if answer is None:
                raise call.failure
            try:
                driver.batch_outcome(answer, stream, version)
            except driver.WrongCurrentVersion:
                raise WrongRevisionError(stream, append.expected) from None

        try:
            self._calling(append, read)
        except KtError as error:
            return error
        return None

    def _calling(self, append: Append, call: Callable[[], Any]) -> Any:
        doing = f"append to {_target(append)}"
        right = WRITE if append.metadata is None else WRITE_METADATA
        return calling(doing, call, right, append.stream, is_plain=self._is_plain)


def _target(append: Append) -> str:
    return append.stream if append.metadata is None else f"$${append.stream}"


def _request(append: Append, deadline: float, encoded: dict[int, bytes]) -> Any:
    """Return the message of an append. ``encoded`` keeps metadata as JSON, by the ids of the objects."""
    if append.metadata is None:
        events = [driver_event(event) for event in append.events]
    else:
        data = encoded.get(id(append.metadata)) or json.dumps(append.metadata).encode()
        encoded[id(append.metadata)] = data
        name = f"{append.stream}\n{append.expected}\n{data.hex()}"
        events = [driver_event(NewEvent(METADATA, data, uuid.uuid5(_METADATA_IDS, name)), is_json=True)]
    return driver.batch_request(_target(append), version_of(append.expected), events, uuid.uuid4(), deadline)


class _Call:
    """One call of ``BatchAppend``. A thread of gRPC sends its requests, and the thread ``appends`` reads.

    Answers come in any order, so each request has a correlation id.
    """

    def __init__(self, client: EsdbClient) -> None:
        self._requests: SimpleQueue[Any] = SimpleQueue()
        self._changed = threading.Condition()
        # Both are guarded by ``_changed``: the ids of requests without an answer, and the answers.
        self._missing: set[int] = set()
        self._answers: dict[int, Any] = {}
        self.failure: Exception = UnavailableError("the append was not answered in time")
        self.has_ended = False
        self._call = driver.batch_append(client, iter(self._requests.get, None))
        threading.Thread(target=self._read, name="appends", daemon=True).start()

    def exchange(self, requests: Sequence[Any], seconds: float) -> list[Any]:
        """Send ``requests``; return the answer of each, None for those without one after ``seconds``."""
        ids = [_number(request.correlation_id) for request in requests]
        with self._changed:
            self._missing.update(ids)
            for request in requests:
                self._requests.put(request)
            answered = self._changed.wait_for(lambda: self.has_ended or not self._missing, seconds)
            answers = [self._answers.pop(number, None) for number in ids]
            self._missing.clear()
        if not answered:
            self.end()
        return answers

    def end(self) -> None:
        self._call.cancel()

    def _read(self) -> None:
        failure: Exception = UnavailableError("the event log ended the call of all appends")
        try:
            for answer in self._call:
                with self._changed:
                    number = _number(answer.correlation_id)
                    if number in self._missing:
                        self._missing.remove(number)
                        self._answers[number] = answer
                    if not self._missing:
                        self._changed.notify_all()
        except grpc.RpcError as error:
            failure = driver.handle_rpc_error(error)
        except ValueError as error:
            # gRPC raises it if the channel is closed meanwhile.
            failure = UnavailableError(f"the connection was closed ({error})")
        finally:
            with self._changed:
                if not self.has_ended:
                    self.failure, self.has_ended = failure, True
                self._changed.notify_all()
            # Releases gRPC's thread, which waits for the next request.
            self._requests.put(None)


def _number(correlation: Any) -> int:
    """Return a correlation id as a number: a server may answer in another form than it was asked in."""
    if correlation.WhichOneof("value") == "string":
        return uuid.UUID(correlation.string).int
    high, low = (
        half & (2**64 - 1)
        for half in (
            correlation.structured.most_significant_bits,
            correlation.structured.least_significant_bits,
        )
    )
    return int(high << 64 | low)
