"""Submissions on their way into the event log: many at a time, in rounds.

A submission takes three steps, and each begins when the step before is durable: its stream of openings
becomes private, its opening is appended, and its mutation is appended to the queue. A round makes the next
step of all submissions at once, by one exchange with the log. All mutations of a round are one event. What
arrives during a round takes part in the next one. So rounds grow with the load, and a single submission waits
for nobody.
"""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from kt_es.errors import AccessDeniedError, KtError, UnavailableError
from kt_es.eventstore.streams import ANY, Append, NewEvent, content_event
from kt_es.formats.queue import MAX_EVENT, MAX_EVENT_ITEMS, MUTATIONS, encode_mutations
from kt_es.server.appender import Appender
from kt_es.server.responses import NotNowError

# Bytes of the CBOR head of the array and of each byte string in it, at most (RFC 8949, 3).
_HEAD = 3
# The openings of a round: their number, and their bytes, of which one more may come.
_ROUND = MAX_EVENT_ITEMS
_ROUND_BYTES = 4 << 20


class UnprotectedError(KtError):
    """The stream of openings was there already, or a right is missing: its ACL must be looked at first."""


@dataclass(frozen=True, slots=True)
class Step:
    """One submission.

    Attributes:
        item: The encoded mutation.
        deadline: By the appender's clock: a step without an answer by then fails.
        protection: Makes the stream of openings private; None if it is known to be.
        opening: Appends the opening; None if there is none.
        event: Done with the id of the mutation's event, which is durable then.
    """

    item: bytes
    deadline: float
    protection: Append | None = None
    opening: Append | None = None
    event: Future[uuid.UUID] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Mutations that are one event. It is repeated as it is: others in it would be another event."""

    steps: Sequence[Step]
    event: NewEvent


class _Countdown:
    """A future that is done after ``left`` other ones."""

    def __init__(self, left: int) -> None:
        self._left = left
        self._lock = threading.Lock()
        self.future: Future[None] = Future()
        self.future.set_running_or_notify_cancel()
        if not left:
            self.future.set_result(None)

    def one(self, _: object) -> None:
        with self._lock:
            self._left -= 1
            is_last = not self._left
        if is_last:
            self.future.set_result(None)


class Batcher:
    """Takes submissions from any thread. ``run`` makes their steps, in a thread of its own.

    An append whose outcome is unknown is repeated as the same event until a deadline. Then its submission
    fails with ``UnavailableError``, and with it all mutations of the same event.
    """

    def __init__(self, appender: Appender, stream: str) -> None:
        self._appender = appender
        self._stream = stream
        self._changed = threading.Condition()
        # Guarded by ``_changed``.
        self._arrived: deque[Step] = deque()
        self._closed = False
        # Owned by ``run``: the submissions by their next step.
        self._unprotected: deque[Step] = deque()
        self._unopened: deque[Step] = deque()
        self._ready: deque[Step] = deque()
        self._batch: _Batch | None = None

    def put(self, step: Step) -> Future[uuid.UUID]:
        """Take a submission; return its future, which cannot be cancelled.

        The future fails with ``UnprotectedError`` if nothing private was appended and ``protection`` did not
        work, with ``UnavailableError`` if the outcome is unknown, and with other errors of an append.
        """
        step.event.set_running_or_notify_cancel()
        with self._changed:
            if self._closed:
                raise NotNowError("the front end is stopping")
            self._arrived.append(step)
            self._changed.notify()
        return step.event

    def put_all(self, steps: Sequence[Step]) -> Future[None]:
        """Take many submissions at once, so that they pass through the same rounds and become full events.

        Returns a future that is done, without an error, when every ``Step.event`` is done. Their errors are
        those of ``put``, and ``NotNowError`` for all of them if nothing is taken any more.
        """
        for step in steps:
            step.event.set_running_or_notify_cancel()
        done = _Countdown(len(steps))
        for step in steps:
            step.event.add_done_callback(done.one)
        with self._changed:
            is_taken = not self._closed
            if is_taken:
                self._arrived.extend(steps)
                self._changed.notify()
        if not is_taken:
            for step in steps:
                step.event.set_exception(NotNowError("the front end is stopping"))
        return done.future

    def append(self, item: bytes, deadline: float) -> uuid.UUID:
        """Put an encoded mutation without an opening into the queue; return the id of its event."""
        return self.put(Step(item, deadline)).result()

    def run(self) -> None:
        """Make rounds until ``close``, and until nothing is left."""
        while self._gather():
            self._round()

    def close(self) -> None:
        """Refuse further submissions. ``run`` finishes those that were taken, and then ends."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    @property
    def _is_idle(self) -> bool:
        return not (self._unprotected or self._unopened or self._ready or self._batch)

    def _gather(self) -> bool:
        """Wait for something to do, and sort what has arrived by its first step; False at the end."""
        with self._changed:
            while self._is_idle and not self._arrived and not self._closed:
                self._changed.wait()
            arrived, self._arrived = self._arrived, deque()
        for step in arrived:
            if step.protection is not None:
                self._unprotected.append(step)
            elif step.opening is not None:
                self._unopened.append(step)
            else:
                self._ready.append(step)
        return not self._is_idle

    def _round(self) -> None:
        """Make the next step of as many submissions as a round has room for."""
        if self._batch is None:
            self._batch = self._next_batch()
        batch = self._batch
        opened, protected = _some(self._unopened), _some(self._unprotected)
        appends = [step.opening for step in opened if step.opening is not None]
        appends += [step.protection for step in protected if step.protection is not None]
        if batch is not None:
            appends.append(Append(self._stream, ANY, [batch.event]))
        outcomes = self._appender.append_all(appends)
        unknown = [outcome for outcome in outcomes if isinstance(outcome, UnavailableError)]
        may_repeat = not unknown or self._appender.may_repeat(unknown[0])
        left = iter(outcomes)
        for step in opened:
            self._opened(step, next(left), may_repeat=may_repeat)
        for step in protected:
            self._protected(step, next(left), may_repeat=may_repeat)
        if batch is not None:
            self._queued(batch, next(left), may_repeat=may_repeat)

    def _opened(self, step: Step, outcome: KtError | None, *, may_repeat: bool) -> None:
        if outcome is None:
            self._ready.append(step)
        elif self._is_over(outcome, step.deadline, may_repeat=may_repeat):
            step.event.set_exception(outcome)
        else:
            self._unopened.append(step)

    def _protected(self, step: Step, outcome: KtError | None, *, may_repeat: bool) -> None:
        if outcome is None:
            self._unopened.append(step)
        elif not isinstance(outcome, UnavailableError):
            step.event.set_exception(UnprotectedError(str(outcome)))
        elif self._is_over(outcome, step.deadline, may_repeat=may_repeat):
            step.event.set_exception(outcome)
        else:
            self._unprotected.append(step)

    def _queued(self, batch: _Batch, outcome: KtError | None, *, may_repeat: bool) -> None:
        deadline = min(step.deadline for step in batch.steps)
        if outcome is not None and not self._is_over(outcome, deadline, may_repeat=may_repeat):
            return
        self._batch = None
        for step in batch.steps:
            if outcome is None:
                step.event.set_result(batch.event.id)
            else:
                step.event.set_exception(outcome)

    def _is_over(self, outcome: KtError, deadline: float, *, may_repeat: bool) -> bool:
        """Return whether a step that failed is not repeated."""
        if isinstance(outcome, AccessDeniedError):
            self._appender.denied(outcome)
        is_unknown = isinstance(outcome, UnavailableError)
        return not (is_unknown and may_repeat and self._appender.has_time(deadline))

    def _next_batch(self) -> _Batch | None:
        steps: list[Step] = []
        size = _HEAD
        while self._ready and len(steps) < MAX_EVENT_ITEMS:
            size += _HEAD + len(self._ready[0].item)
            if steps and size > MAX_EVENT:
                break
            steps.append(self._ready.popleft())
        if not steps:
            return None
        items = encode_mutations([step.item for step in steps])
        return _Batch(steps, content_event(self._stream, MUTATIONS, items))


def _some(steps: deque[Step]) -> list[Step]:
    """Take as many submissions as a round has room for."""
    taken: list[Step] = []
    size = 0
    while steps and len(taken) < _ROUND and size < _ROUND_BYTES:
        opening = steps[0].opening
        size += 0 if opening is None else sum(len(event.data) for event in opening.events)
        taken.append(steps.popleft())
    return taken
