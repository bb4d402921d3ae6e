"""Follows a directory until it is stopped: replays, waits for the next head, waits out every outage.

Front ends and monitors use ``follow``. A standby of the signer follows by ``Signer.recover``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from kt_es.errors import AccessDeniedError, KtError, UnavailableError
from kt_es.eventstore.streams import Event, EventLog, StreamNames, Subscription
from kt_es.formats.queue import Record
from kt_es.ledger.anchor import Anchor
from kt_es.ledger.ledger import Ledger, check_pinned
from kt_es.ledger.replay import Replay, ReplayedEpoch
from kt_es.process.outage import Backoff, Outage, keep_trying


def _ignore(*_: object) -> None:
    return


@dataclass(frozen=True, slots=True)
class Listener:
    """Callbacks of ``follow``, in the thread that follows.

    Args:
        on_epoch: an epoch is verified and committed.
        on_record: a record is verified; its epoch is not committed yet.
        on_outage: the log or the disk cannot be used; the epoch that was being replayed begins again.
        on_head: the replay of an epoch begins.
        on_current: everything that was published is committed. Later heads arrive as they are published.
        bears_denials: a missing right is an outage. Otherwise it ends ``follow``.
    """

    on_epoch: Callable[[ReplayedEpoch], None]
    on_record: Callable[[Record], None] = _ignore
    on_outage: Callable[[KtError], None] = _ignore
    on_head: Callable[[Event], None] = _ignore
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
    """Verify and commit every epoch as it is published, until ``stop``. ``outage`` logs each outage.

    The last head that was verified here is compared at the start, after each connection and at each head.

    Raises:
        DivergenceError: the logs hold something that cannot be, also as ``check_pinned`` finds it. The caller
            must stop relying on the logs.
        RollbackError, EquivocationError: the log does not hold the last head that was verified here.
    """
    backoff = Backoff()

    def attempt() -> None:
        ledger.resume()
        with closing(connect()) as log:
            replay = Replay(log, names, ledger, listener.on_record)
            with closing(_heads(log, names, ledger, listener, stop, outage=outage)) as heads:
                for head in heads:
                    listener.on_head(head)
                    replayed = replay.advance(head)
                    backoff.reset()
                    outage.over()
                    listener.on_epoch(replayed)

    passing = (UnavailableError, AccessDeniedError) if listener.bears_denials else (UnavailableError,)
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
    # Long replays leave new heads behind: read until there are none.
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
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            if stop.wait(0.2):
                subscription.stop()
                return

    watcher = threading.Thread(target=watch, name="stop-watcher", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        subscription.stop()
        watcher.join()
