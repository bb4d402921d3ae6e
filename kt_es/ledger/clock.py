"""Checks of the timestamps of heads against the reader's clock. Pure: times are arguments, in milliseconds.

A directory promises a head each ``max_interval``. A head from the future, a gap between two heads and silence
now are alarms. They prove nothing, so they are neither a divergence nor evidence.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from kt_es.formats.configs import SignedConfig
from kt_es.ledger.rows import Committed

# How far clocks may differ, and how late a head may be.
SLACK = 60_000
# ``max_interval`` that is assumed while the config of the directory is not known yet.
UNKNOWN_INTERVAL = 60_000


@dataclass(frozen=True, slots=True)
class Future:
    """A head whose timestamp was ``ahead`` milliseconds after the reader's clock when it was verified."""

    epoch: int
    timestamp: int
    ahead: int


@dataclass(frozen=True, slots=True)
class Gap:
    """The time between the heads of ``epoch - 1`` and ``epoch``, which is longer than ``promised``."""

    epoch: int
    begun: int
    ended: int
    promised: int

    @property
    def length(self) -> int:
        return self.ended - self.begun


@dataclass(frozen=True, slots=True)
class IntervalChange:
    """From ``epoch`` on, ``max_interval`` is ``now`` and no longer ``before``."""

    epoch: int
    before: int
    now: int


def max_interval(config: SignedConfig | None) -> int:
    return UNKNOWN_INTERVAL if config is None else config.config.max_interval


def future(committed: Committed, now: int) -> Future | None:
    """Return the latest head if its timestamp is too far in the future."""
    timestamp = committed.standing.timestamp
    ahead = timestamp - now
    return Future(committed.epoch, timestamp, ahead) if ahead > SLACK else None


def gap(before: Committed, after: Committed) -> Gap | None:
    """Return the gap between two consecutive heads if the config then in force does not allow it."""
    begun, ended = before.standing.timestamp, after.standing.timestamp
    if before.epoch == 0:
        return None
    promised = max_interval(before.standing.config)
    return Gap(after.epoch, begun, ended, promised) if ended - begun > promised + SLACK else None


def silence(committed: Committed, now: int) -> int:
    """Return the time since the last head if it is longer than allowed, otherwise 0."""
    age = now - committed.standing.timestamp
    return age if committed.epoch and age > max_interval(committed.standing.config) + SLACK else 0


def interval_change(before: Committed, after: Committed) -> IntervalChange | None:
    """Return the change of ``max_interval`` that the epoch of ``after`` accepted. It holds after it."""
    old, new = before.standing.config, after.standing.config
    if old is None or new is None or old.config.max_interval == new.config.max_interval:
        return None
    return IntervalChange(after.epoch + 1, old.config.max_interval, new.config.max_interval)


@dataclass(slots=True)
class ClockReport:
    """What an audit finds about time: how many gaps and future heads, and the worst of each."""

    future: int = 0
    farthest: Future | None = None
    gaps: int = 0
    longest: Gap | None = None
    changes: list[IntervalChange] = field(default_factory=list)
    silence: int = 0

    def verified(self, before: Committed, after: Committed, now: int) -> None:
        """Add the epoch that led from ``before`` to ``after``."""
        ahead, between, change = future(after, now), gap(before, after), interval_change(before, after)
        if ahead is not None:
            self.future += 1
            if self.farthest is None or ahead.ahead > self.farthest.ahead:
                self.farthest = ahead
        if between is not None:
            self.gaps += 1
            if self.longest is None or between.length > self.longest.length:
                self.longest = between
        if change is not None:
            self.changes.append(change)


def spoken(milliseconds: int) -> str:
    """Return a length of time for people: ``45 s``, ``2 min 5 s``, ``3 h 20 min``, ``4 d 1 h``."""
    seconds = round(milliseconds / 1000)
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    for (name, size), (smaller, of) in itertools.pairwise(units):
        if seconds >= size:
            rest = seconds % size // of
            return f"{seconds // size} {name}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds} s"
