"""Following a directory for good: replay, wait for the next head, wait out every outage.

Front ends and monitors both live in ``follow``; the standby of a signer follows by its own loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from kt_es.errors import AccessDeniedError, UnavailableError
from kt_es.eventstore.streams import Event, EventLog, StreamNames, Subscription
from kt_es.formats.queue import Record
from kt_es.ledger.anchor import Anchor
from kt_es.ledger.ledger import Ledger, check_pinned
from kt_es.ledger.replay import Replay, ReplayedEpoch
from kt_es.process.outage import Backoff, Outage


def _ignore_outage(_: UnavailableError | AccessDeniedError) -> None:
    return


def _ignore_record(_: Record) -> None:
    return


def _ignore() -> None:
    return


def _ignore_head(_: Event) -> None:
    return


@dataclass(frozen=True, slots=True)
class Listener:
    """Callbacks: heads before their epoch is replayed, records before it is committed, epochs after.

    Outages are told as they come, a full disk among them, and so are rights that are denied, if
    ``bears_denials``: all of them pass. Without it a denied right is raised. The epoch that was being
    replayed begins anew. ``on_current`` is told when everything that was published is committed, and from
    there on heads come as they are published.
    """

    on_epoch: Callable[[ReplayedEpoch], None]
    on_record: Callable[[Record], None] = _ignore_record
    on_outage: Callable[[UnavailableError | AccessDeniedError], None] = _ignore_outage
    on_head: Callable[[Event], None] = _ignore_head
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

    ``outage`` logs the times when that is not possible.

    The last head that was verified here is compared at the start, after each connection and at each head.
    Raises what ``Anchor`` and ``check_pinned`` raise, and ``DivergenceError`` as soon as the logs hold
    something that cannot be: whoever follows must then stop relying on them.
    """
    backoff = Backoff()
    while not stop.is_set():
        try:
            ledger.resume()
            log = connect()
            try:
                replay = Replay(log, names, ledger, listener.on_record)
                with closing(_heads(log, names, ledger, listener, stop, outage=outage)) as heads:
                    for head in heads:
                        listener.on_head(head)
                        replayed = replay.advance(head)
                        backoff.reset()
                        outage.over()
                        listener.on_epoch(replayed)
            finally:
                log.close()
        except (UnavailableError, AccessDeniedError) as error:
            if isinstance(error, AccessDeniedError) and not listener.bears_denials:
                raise
            listener.on_outage(error)
            # What fails because everything around is being closed is no news.
            if not stop.is_set():
                outage.failed(error)
            stop.wait(backoff.pause())


def _heads(
    log: EventLog,
    names: StreamNames,
    ledger: Ledger,
    listener: Listener,
    stop: threading.Event,
    *,
    outage: Outage,
) -> Generator[Event, None, None]:
    """The heads that are published and not committed, one by one, and then those that come.

    Each is committed before the next one is asked for.
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
        # The client may have connected anew since the last read, without a word, and to another log.
        anchor.check(log)
        for event in subscription:
            anchor.check_delivered(log, event)
            yield event
            if ledger.committed.epoch == 1:
                # The directory began meanwhile.
                check_pinned(ledger)


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
