"""Following the logs of a directory for good, and the copies of a front end that follow them.

Front ends and monitors use ``follow``. A standby of the signer follows by ``Signer.recover``.

A front end has two copies, each with its own thread: of both logs (``replica``), and of the openings. While
the log cannot be reached, the committed epochs are served. A divergence ends a thread, and ``failed`` is
called: a front end must not answer from a copy in doubt. A missing right is an outage, named by ``denied``.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import structlog

from kt_es.errors import AccessDeniedError, KtError, MalformedError, UnavailableError
from kt_es.eventstore.streams import Event, EventLog, StreamNames, Subscription
from kt_es.formats.queue import Record
from kt_es.ledger.adoption import following
from kt_es.ledger.anchor import Anchor
from kt_es.ledger.ledger import Ledger, check_pinned
from kt_es.ledger.openings import OpeningTable
from kt_es.ledger.replay import ReplayedEpoch
from kt_es.ledger.verifiers import Verifiers
from kt_es.process.outage import Backoff, Outage, keep_trying
from kt_es.process.signals import Worker

GRACE = 5.0  # seconds

_LOG = structlog.get_logger("projections.follower")


def _ignore(*_: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Listener:
    """Callbacks of ``follow``, in the thread that follows.

    Args:
        on_epoch: An epoch is verified and committed.
        on_record: A record is verified; its epoch is not committed yet.
        on_outage: The log or the disk cannot be used; the epoch that was being replayed begins again.
        on_head: The replay of an epoch begins.
        on_current: Everything that was published is committed. Later heads arrive as they are published.
        bears_denials: A missing right is an outage. Otherwise it ends ``follow``.
    """

    on_epoch: Callable[[ReplayedEpoch], None]
    on_record: Callable[[Record], None] = _ignore
    on_outage: Callable[[KtError], None] = _ignore
    on_head: Callable[[], None] = _ignore
    on_current: Callable[[], None] = _ignore
    bears_denials: bool = False


def follow(
    connect: Callable[[], EventLog],
    names: StreamNames,
    ledger: Ledger,
    listener: Listener,
    stop: threading.Event,
    *,
    outage: Outage,
) -> None:
    """Verify and commit every epoch as it is published, until ``stop``.

    The last head that was verified here is compared at the start, after each connection and at each head.

    Args:
        connect: Makes a client of the event log; called again after each outage.
        ledger: The state to continue. This call is its only writer.
        listener: The callbacks.
        outage: Logs each outage.

    Raises:
        DivergenceError: The logs differ from the replay, or ``check_pinned`` fails. The caller must stop
            relying on the logs.
        RollbackError, EquivocationError: The log does not hold the last head that was verified here.
    """
    backoff = Backoff()

    def attempt() -> None:
        ledger.resume()
        with closing(connect()) as log:
            replay = following(log, names, ledger, listener.on_record, verifiers)
            for replayed in replay.jump():
                listener.on_epoch(replayed)
            with closing(_heads(log, names, ledger, listener, stop, outage=outage)) as heads:
                for head in heads:
                    listener.on_head()
                    replayed = replay.advance(head)
                    backoff.reset()
                    outage.over()
                    listener.on_epoch(replayed)

    passing = (*ledger.passing, AccessDeniedError) if listener.bears_denials else ledger.passing
    with Verifiers(ledger.committed.standing.origin) as verifiers:
        keep_trying(attempt, stop, outage, backoff, on_failure=listener.on_outage, passing=passing)


def _heads(
    log: EventLog,
    names: StreamNames,
    ledger: Ledger,
    listener: Listener,
    stop: threading.Event,
    *,
    outage: Outage,
) -> Generator[Event, None, None]:
    """Yield the heads that are published and not committed, then each new one.

    The caller commits each head before it asks for the next one.
    """
    anchor = Anchor(names, ledger)
    before = -1
    # During a long replay new heads are published: read again until there are none.
    while before != ledger.committed.epoch:
        before = ledger.committed.epoch
        for event in anchor.published(log):
            yield event
            if stop.is_set():
                return
    check_pinned(ledger)
    listener.on_current()
    subscription = log.subscribe(names.heads, ledger.committed.epoch - 1)
    outage.over()
    with stopped_by(stop, subscription):
        # The client may have connected again since the last read, to another log, without an error.
        anchor.check(log)
        for event in subscription:
            anchor.check_delivered(log, event)
            yield event
            if ledger.committed.epoch == 1:
                # The directory had no epoch at the first check.
                check_pinned(ledger)


@contextmanager
def stopped_by(stop: threading.Event, subscription: Subscription) -> Iterator[None]:
    """End ``subscription`` when ``stop`` is set: its iteration blocks, so a thread watches ``stop``."""

    def watch(done: threading.Event) -> None:
        while not done.is_set():
            if stop.wait(0.2):
                subscription.stop()
                return

    def failed(error: KtError) -> None:
        _LOG.error("a subscription cannot be ended", problem=str(error))

    watcher = Worker("stop-watcher", watch, failed)
    watcher.start()
    try:
        yield
    finally:
        subscription.stop()
        watcher.end(GRACE)


_INDEX = re.compile(r"[0-9a-f]{64}")


class OpeningsFollower:
    """Keeps ``openings`` up to date: the only writer of that table.

    Each index has a stream of ``Opening`` and ``OpeningErased`` events. Log lines name streams and revisions,
    which reveal nothing about a person.
    """

    def __init__(
        self,
        connect: Callable[[], EventLog],
        names: StreamNames,
        openings: OpeningTable,
        failed: Callable[[KtError], None],
    ) -> None:
        self._connect = connect
        self._prefix = names.openings_prefix
        self._openings = openings
        self._outage = Outage("openings", _LOG)
        self.denied: AccessDeniedError | None = None
        self.worker = Worker("openings", self._run, failed)

    def add(self, event: Event) -> None:
        """Store one event in the table. An event that is no opening is skipped and logged."""
        try:
            self._openings.add(_index_of(event.stream, self._prefix) if event.type else None, event)
        except MalformedError as error:
            _LOG.warning(
                "skipped an event that is no opening",
                stream=event.stream[:200],
                revision=event.revision,
                problem=error.problem,
            )
            self._openings.add(None, event)

    def _run(self, stop: threading.Event) -> None:
        backoff = Backoff()

        def attempt() -> None:
            self._openings.store.ensure_writable()
            with closing(self._connect()) as log:
                subscription = log.subscribe_prefix(self._prefix, self._openings.position)
                self._outage.over()
                self.denied = None
                with stopped_by(stop, subscription):
                    for event in subscription:
                        self.add(event)
                        backoff.reset()

        def failed(error: KtError) -> None:
            self.denied = error if isinstance(error, AccessDeniedError) else None

        passing = (UnavailableError, AccessDeniedError)
        keep_trying(attempt, stop, self._outage, backoff, on_failure=failed, passing=passing)


def _index_of(stream: str, prefix: str) -> bytes:
    name = stream.removeprefix(prefix)
    if not stream.startswith(prefix) or not _INDEX.fullmatch(name):
        raise MalformedError("opening stream", "its name does not end in an index")
    return bytes.fromhex(name)
