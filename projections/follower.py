"""Following a directory for good: replay, wait for the next head, wait out every outage.

Front ends and monitors both live in ``follow``; the standby of a signer follows by its own loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kt_es.errors import UnavailableError
from kt_es.eventstore.streams import EventLog, StreamNames, Subscription
from kt_es.formats.records import Record
from projections.ledger import Ledger
from projections.replay import Replay, ReplayedEpoch

FIRST_DELAY = 0.2
LAST_DELAY = 2.0


def _ignore_outage(_: UnavailableError) -> None:
    return


def _ignore_record(_: Record) -> None:
    return


@dataclass(frozen=True, slots=True)
class Listener:
    """Who is told what: records before their epoch is committed, epochs after, outages as they come."""

    on_epoch: Callable[[ReplayedEpoch], None]
    on_record: Callable[[Record], None] = _ignore_record
    on_outage: Callable[[UnavailableError], None] = _ignore_outage


def follow(
    connect: Callable[[], EventLog],
    names: StreamNames,
    ledger: Ledger,
    listener: Listener,
    stop: threading.Event,
) -> None:
    """Verify and commit every epoch as it is published, until ``stop``.

    Raises ``DivergenceError`` as soon as the logs hold something that cannot be: whoever follows must
    then stop relying on them.
    """
    delay = FIRST_DELAY
    while not stop.is_set():
        try:
            log = connect()
            try:
                for epoch in _epochs(log, names, Replay(log, names, ledger, listener.on_record), stop):
                    delay = FIRST_DELAY
                    listener.on_epoch(epoch)
            finally:
                log.close()
        except UnavailableError as error:
            listener.on_outage(error)
            stop.wait(delay)
            delay = min(2 * delay, LAST_DELAY)


def _epochs(
    log: EventLog, names: StreamNames, replay: Replay, stop: threading.Event
) -> Iterator[ReplayedEpoch]:
    for epoch in replay.catch_up():
        yield epoch
        if stop.is_set():
            return
    subscription = log.subscribe(names.heads, replay.ledger.committed.epoch - 1)
    with stopped_by(stop, subscription):
        for event in subscription:
            yield replay.advance(event)


@contextmanager
def stopped_by(stop: threading.Event, subscription: Subscription) -> Iterator[None]:
    """End ``subscription`` when ``stop`` is set: its iteration blocks and cannot look by itself."""
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
