"""What an examination looks at, and what it has found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from kt_es.ledger.ledger import Ledger
from kt_es.ledger.origin import Beginning
from kt_es.ledger.store import Storage

MAX_DIFFERENCES = 20
EPOCH_SIZE = 8
PROGRESS_EVERY = 4096


class EnoughError(Exception):
    """So many differences were found that more say nothing new."""


@dataclass(slots=True)
class Report:
    """What was looked at, and the first differences; none means that all is as it must be."""

    epoch: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not self.differences


class Findings:
    """A report in the making. ``progress`` is told now and then what is looked at and how many of it."""

    def __init__(self, progress: Callable[[str, int], None]) -> None:
        self.report = Report()
        self._progress = progress

    def differs(self, difference: str) -> None:
        """Note a difference, once; ``EnoughError`` if it is the last that is wanted."""
        if difference in self.report.differences:
            return
        self.report.differences.append(difference)
        if len(self.report.differences) >= MAX_DIFFERENCES:
            raise EnoughError

    def count(self, what: str) -> None:
        """One more of ``what`` was looked at."""
        self.report.counts[what] += 1
        if self.report.counts[what] % PROGRESS_EVERY == 0:
            self._progress(what, self.report.counts[what])


@dataclass(frozen=True, slots=True)
class Examined:
    """A data directory under examination. ``begun``: the snapshot it began with, if it did."""

    store: Storage
    origin: str
    ledger: Ledger
    begun: Beginning
    findings: Findings
