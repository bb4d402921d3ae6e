"""Following the tiles of a directory for good, as a monitor does, and to their end, as an audit does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Final

from kt_es.errors import UnavailableError
from kt_es.eventstore.patient import Patience
from kt_es.formats.queue import Record
from kt_es.ledger.clock import SLACK, max_interval
from kt_es.ledger.ledger import Ledger, check_pinned
from kt_es.ledger.replay import ReplayedEpoch
from kt_es.ledger.rows import Committed
from kt_es.ledger.verifiers import Verifiers
from kt_es.process.outage import Backoff, Outage, keep_trying
from projections.follower import Listener
from projections.tiles.comparing import Lag
from projections.tiles.replay import TiledReplay
from projections.tiles.server import Tiles

SOONEST: Final = 1.0
LATEST: Final = 30.0
"""Seconds between two looks at a server, at least and at most, where nobody has said how many."""


def look_interval(committed: Committed) -> float:
    """Return the seconds from one look at the server to the next: half of the interval between heads."""
    return min(max(SOONEST, max_interval(committed.standing.config) / 2000), LATEST)


def follow_tiles(
    connect: Callable[[], Tiles],
    ledger: Ledger,
    listener: Listener,
    stop: threading.Event,
    *,
    outage: Outage,
    interval: float | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """Verify and commit every epoch as it is published, until ``stop``.

    Args:
        connect: Makes a client of the server; called again after each outage.
        ledger: The state to continue. This call is its only writer.
        listener: The callbacks. Every head that is late is an old one here, since nobody delivers heads.
        outage: Logs each outage. A server that is behind what was verified here is one as well.
        interval: Seconds from one look at the server to the next, None for ``look_interval``.
        monotonic: The clock, in seconds.

    Raises:
        DivergenceError, VerificationError: The logs differ from the replay, or ``check_pinned`` fails.
        RollbackError: The server was behind for longer than a head may take.
        EquivocationError: The server shows another log than the one that was verified here.
    """
    backoff = Backoff()

    def patience() -> float:
        return (max_interval(ledger.committed.standing.config) + SLACK) / 1000

    lag = Lag(patience, monotonic)

    def attempt() -> None:
        ledger.resume()
        with (
            closing(connect()) as tiles,
            closing(TiledReplay(tiles, ledger, listener.on_record, verifiers, lag)) as replay,
        ):
            while not stop.is_set():
                with closing(replay.look(listener.on_head)) as epochs:
                    for replayed in epochs:
                        backoff.reset()
                        outage.over()
                        listener.on_epoch(replayed)
                        if stop.is_set():
                            return
                outage.over()
                if replay.is_current:
                    check_pinned(ledger)
                    listener.on_current()
                stop.wait(look_interval(ledger.committed) if interval is None else interval)

    with Verifiers(ledger.committed.standing.origin) as verifiers:
        keep_trying(attempt, stop, outage, backoff, on_failure=listener.on_outage, passing=ledger.passing)


def replayed_tiles(
    tiles: Tiles,
    ledger: Ledger,
    observe: Callable[[Record], None],
    verifiers: Verifiers,
    *,
    patience: float,
    say: Callable[[str], None],
) -> Iterator[ReplayedEpoch]:
    """Commit every epoch that the server has now, and yield each: ``replay`` of ``audit_epochs``.

    Args:
        patience: Seconds for which a server may be away, or behind what was verified here before.
        say: Called with a message once if there is something to wait for.

    Raises:
        UnavailableError: The server was away for longer, or never shows as many records as its heads need.
        RollbackError: It was behind for longer.
    """
    lag = Lag(lambda: patience / 2, time.monotonic)
    waiting = Patience(patience, say, source="the server")
    with closing(TiledReplay(tiles, ledger, observe, verifiers, lag)) as replay:
        while not replay.is_current:
            try:
                yield from replay.look()
            except UnavailableError as error:
                waiting.failed(error)
            else:
                waiting.reached()
