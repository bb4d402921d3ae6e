"""Signatures are verified ahead, on all cores, while the ordered decision goes on in one thread.

Signers, replicas, monitors and audits decide item after item, and most of their time would go into
signatures. ``Verifiers`` hands events that will be decided soon to a few processes
(``kt_es/ledger/verifier.py``). They answer with facts (``kt_es/formats/facts.py``), which the decision looks
up. A signature without a fact is verified by the decision itself, so the verdicts are the same with and
without these processes: if none could be started, if one was killed, or if an event came too late.

Processes, not threads: a thread that returns from libsodium waits for the interpreter lock, up to 5 ms for
each signature while the decision runs.

The processes start when enough events wait, so a process with little work has none. Memory is bounded by
bytes: of events on the way to a process (``BACKLOG``), and of all that wait for the decision (``AHEAD``).
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Container, Iterable, Iterator
from types import TracebackType
from typing import Final

import structlog

from kt_es.eventstore.streams import Event
from kt_es.formats.queue import MAX_EVENT, MAX_EVENT_BYTES, MUTATIONS, RECORDS
from kt_es.ledger.ahead import AHEAD, Ahead
from kt_es.ledger.verifier import QUEUE_EVENT, RECORDS_EVENT
from kt_es.ledger.verifying import Asked, VerifierProcess

MOST: Final = 4
"""Processes at most. The decision, which is one thread, does not keep more of them busy."""
LEAST: Final = 64 << 10
"""Bytes of events that wait for the decision before processes are started: about 300 mutations."""
BACKLOG: Final = 2 << 20
"""Bytes of events that wait for one process, beside those in its pipe."""
FLUSH: Final = 32 << 10
"""Bytes that are sent to a process at once, unless the decision waits for them: each call takes time."""
PATIENCE: Final = 30.0
"""Seconds without any answer after which a process is ended."""
RESTART: Final = 60.0
"""Seconds after the unexpected end of a process before another one is started."""

_KINDS: Final = {MUTATIONS: (QUEUE_EVENT, MAX_EVENT), RECORDS: (RECORDS_EVENT, 2 * MAX_EVENT_BYTES)}
_LOG = structlog.get_logger("verifiers")


def usable_processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Verifiers:
    """The processes of one follower of one stream. ``_lock`` guards the fields.

    Any thread may call ``offer``. One thread decides, and calls the other methods.
    """

    def __init__(self, origin: str, processes: int | None = None, *, least: int = LEAST) -> None:
        """Verify for the directory ``origin``.

        Args:
            processes: How many. None means one for each usable processor, but at most ``MOST``, and none
                for a single processor. With 0 the decision verifies every signature itself.
            least: See ``LEAST``.
        """
        if processes is None:
            usable = usable_processors()
            processes = min(usable, MOST) if usable > 1 else 0
        self._origin = origin
        self._wanted = processes
        self._least = least
        self._lock = threading.Lock()
        self._processes: list[VerifierProcess] = []
        self._asked: OrderedDict[int, Asked] = OrderedDict()  # by revision
        self._unsent: deque[Asked] = deque()  # of these, what no process has yet, and what was decided
        self._held = 0  # bytes of the events in ``_asked``
        self._next = 0  # revision that is decided next
        self._reading: Ahead | None = None  # used by the deciding thread alone
        self._not_before = 0.0  # time of the next start

    @classmethod
    def none(cls) -> Verifiers:
        """Return verifiers without processes: the decision verifies every signature."""
        return cls("", 0)

    def __enter__(self) -> Verifiers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """The processes that are ready to verify."""
        with self._lock:
            self._exchange()
            return [one.process.pid for one in self._processes if one.is_ready]

    def close(self) -> None:
        """End the processes. Later events have no facts."""
        with self._lock:
            self._wanted = 0
            for one in self._processes:
                one.end()
            self._processes = []
            self._forget()

    def begin(self) -> None:
        """Forget what was offered: the events come again, from an earlier revision or from another log."""
        self._reading = None
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        self._asked, self._held, self._next = OrderedDict(), 0, 0
        self._unsent.clear()

    def ahead(self, events: Iterable[Event]) -> Iterator[Event]:
        """Return ``events``, which are read and offered some time before they are decided: see ``Ahead``."""
        if not self._wanted:
            return iter(events)
        self._reading = Ahead(events, self.offer)
        return self._reading

    def offer(self, event: Event) -> None:
        """Have the signatures of an event verified, if it has any and not too much waits already."""
        kind, most = _KINDS.get(event.type, (0, -1))
        size = len(event.data)
        if size > most or not self._wanted:
            return
        with self._lock:
            if event.revision < self._next or event.revision in self._asked or self._held + size > AHEAD:
                return
            asked = self._asked[event.revision] = Asked(size, (kind, event.data))
            self._unsent.append(asked)
            self._held += size
            if len(self._processes) < self._wanted and self._held >= self._least:
                self._start()
            self._hand_out()

    def keep_busy(self) -> None:
        """Give the processes more to do. For the decision, while it takes long over something else."""
        if self._reading is not None:
            self._reading.read_on()
        with self._lock:
            self._exchange()
            self._hand_out()

    def verified(self, revision: int) -> Container[bytes]:
        """Return the facts about the event at ``revision``, which is decided now.

        Waits for the process that has the event. It and all events before it are forgotten.
        """
        with self._lock:
            self._next = revision + 1
            asked = self._asked.pop(revision, None)
            if asked is not None:
                self._decided(asked)
            while self._asked and next(iter(self._asked)) < revision:
                self._decided(self._asked.popitem(last=False)[1])
            self._exchange()
            self._hand_out()
        if asked is None:
            return ()
        began = time.monotonic()
        while asked.facts is None:
            self._wait(asked, began)
        return asked.facts

    def _decided(self, asked: Asked) -> None:
        self._held -= asked.size
        asked.request = None
        # A process that takes events drops those that were decided. Without one they are dropped here.
        if len(self._unsent) > 2 * len(self._asked):
            self._unsent = deque(one for one in self._unsent if one.request is not None)

    def _hand_out(self) -> None:
        """Send events to the processes that are ready and have room."""
        while self._unsent:
            ready = [one for one in self._processes if one.is_ready and one.backlog <= BACKLOG]
            if not ready:
                self._exchange()  # one may be ready now
                return
            least = min(ready, key=lambda one: (len(one.asked), one.backlog))
            least.ask(self._unsent.popleft())
            if least.backlog >= FLUSH:
                self._exchange()

    def _wait(self, asked: Asked, began: float) -> None:
        """Wait a little for an answer to ``asked``. The lock is free meanwhile, so events can be offered."""
        with self._lock:
            by = asked.by
            if by is None or asked.facts is not None:
                return
            if time.monotonic() - max(by.heard_at, began) > PATIENCE:
                self._ended(by, f"no answer for {PATIENCE:.0f} s")
                return
            # Not ``select``, which takes no descriptor above 1023.
            poll = select.poll()
            for one in self._processes:
                poll.register(one.answers, select.POLLIN)
                if one.sending:
                    poll.register(one.requests, select.POLLOUT)
        poll.poll(1_000)
        with self._lock:
            self._exchange()

    def _exchange(self) -> None:
        """Write and read what is possible without waiting."""
        for one in list(self._processes):
            try:
                one.exchange()
            except OSError as error:
                self._ended(one, str(error))

    def _start(self) -> None:
        if time.monotonic() < self._not_before:
            return
        try:
            while len(self._processes) < self._wanted:
                self._processes.append(VerifierProcess.start(self._origin))
        except OSError as error:
            self._pause(str(error), None)
        else:
            _LOG.info("signatures are verified ahead", processes=len(self._processes))

    def _ended(self, one: VerifierProcess, why: str) -> None:
        one.end()
        self._processes.remove(one)
        self._pause(why, one.process.returncode)

    def _pause(self, why: str, code: int | None) -> None:
        self._not_before = time.monotonic() + RESTART
        _LOG.warning(
            "a process that verifies signatures ahead has ended or did not start: without it they are "
            "verified one after the other, and it is started again later",
            problem=why,
            exit_code=code,
            processes=len(self._processes),
            seconds=RESTART,
        )
