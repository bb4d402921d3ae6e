"""The monitor's watch over time: alarms for silence, heads from the future and gaps, and their end.

It is told of the replay by the thread that replays, and asked by a thread with a clock: silence must be
noticed while a subscription hangs or the log cannot be reached.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from kt_es.ledger import clock
from kt_es.ledger.clock import SLACK, spoken
from kt_es.ledger.state import Committed

# How long a replay that makes no step is still believed to be at work, in seconds; also a start.
PATIENCE = SLACK / 1000


class Alarm(StrEnum):
    """What time can be wrong about."""

    SILENCE = "silence"
    FUTURE = "future-head"
    GAP = "gap"


@dataclass(frozen=True, slots=True)
class Notice:
    """An alarm that begins (``raised``) or ends. ``lasted`` is in ms, 0 where it begins."""

    alarm: Alarm
    raised: bool
    sentence: str
    lasted: int = 0


class Vigil:
    """``now`` is the wall clock in ms, ``monotonic`` in seconds. Safe for threads.

    ``notify`` is called with each notice, in the thread that found it, and must not call back.
    """

    def __init__(
        self, now: Callable[[], int], monotonic: Callable[[], float], notify: Callable[[Notice], None]
    ) -> None:
        self._now = now
        self._monotonic = monotonic
        self._notify = notify
        self._lock = threading.Lock()
        # All guarded by the lock.
        self._committed: Committed | None = None
        self._begun = now()
        self._at_work_until = monotonic() + PATIENCE
        self._is_current = False
        self._since: dict[Alarm, int] = {}

    def resumed(self, committed: Committed) -> None:
        """What was verified before the process started."""
        with self._lock:
            self._committed = committed

    def at_work(self) -> None:
        """The replay made a step: heads are behind, and nobody is silent."""
        # One assignment, without the lock: it is told of every record.
        self._at_work_until = self._monotonic() + PATIENCE

    def waits(self) -> None:
        """Everything that was published is verified, or the log went away: from now on the clock counts."""
        self._is_current = True
        self._at_work_until = self._monotonic()

    def verified(self, committed: Committed) -> None:
        """The next epoch is verified."""
        now = self._now()
        if self._is_current:
            # Heads come as they are published: an old one is late, and not one to catch up with.
            self._at_work_until = self._monotonic()
        with self._lock:
            before, self._committed = self._committed, committed
            between = None if before is None else clock.gap(before, committed)
            if between is None:
                self._ends(Alarm.GAP, now, "heads come in time again")
            else:
                self._begins(
                    Alarm.GAP,
                    now,
                    f"gap between heads: that of epoch {between.epoch} came {spoken(between.length)} after "
                    f"the one before; max_interval was {spoken(between.promised)}",
                )
        self.look()

    def look(self) -> str:
        """Compare the latest verified head with the clock; what is to be said of silence, nothing without."""
        now = self._now()
        with self._lock:
            self._look_at_future(now)
            return self._look_at_silence(now)

    def _look_at_future(self, now: int) -> None:
        ahead = None if self._committed is None else clock.future(self._committed, now)
        if ahead is None:
            self._ends(Alarm.FUTURE, now, "the latest head is not in the future any more")
        else:
            self._begins(
                Alarm.FUTURE,
                now,
                f"the head of epoch {ahead.epoch} is {spoken(ahead.ahead)} later than this machine's clock",
            )

    def _look_at_silence(self, now: int) -> str:
        committed = self._committed
        if committed is not None and committed.epoch:
            lasts, since = clock.silence(committed, now), f"epoch {committed.epoch}"
        else:
            lasts, since = now - self._begun, "the start of this monitor, and none was seen before"
            lasts = lasts if lasts > clock.UNKNOWN_INTERVAL + SLACK else 0
        sentence = f"no head since {since}: silence for {spoken(lasts)}"
        if not lasts:
            self._ends(Alarm.SILENCE, now, "heads return")
        elif self._monotonic() >= self._at_work_until:
            self._begins(Alarm.SILENCE, now, sentence, lasts)
        return sentence if Alarm.SILENCE in self._since else ""

    def _begins(self, alarm: Alarm, now: int, sentence: str, before: int = 0) -> None:
        if alarm not in self._since:
            self._since[alarm] = now - before
            self._notify(Notice(alarm, raised=True, sentence=sentence))

    def _ends(self, alarm: Alarm, now: int, sentence: str) -> None:
        since = self._since.pop(alarm, None)
        if since is not None:
            lasted = max(0, now - since)
            self._notify(
                Notice(alarm, raised=False, sentence=f"{sentence}; it lasted {spoken(lasted)}", lasted=lasted)
            )
