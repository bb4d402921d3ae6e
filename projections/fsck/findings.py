"""The data directory under examination, and what the examination has found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from kt_es.ledger.ledger import Ledger
from kt_es.ledger.state import Beginning

MAX_DIFFERENCES = 20
PROGRESS_EVERY = 4096


class EnoughError(Exception):
    """``MAX_DIFFERENCES`` were found: more of them would say nothing new."""


@dataclass(slots=True)
class FsckReport:
    """How many things were examined, and the first differences. No difference means a good directory."""

    epoch: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not self.differences


class Findings:
    """A report in the making. Calls ``progress`` now and then with what is examined, and how many."""

    def __init__(self, progress: Callable[[str, int], None]) -> None:
        self.report = FsckReport()
        self._progress = progress

    def differs(self, difference: str) -> None:
        """Note a difference, once. Raises ``EnoughError`` when there are ``MAX_DIFFERENCES``."""
        if difference in self.report.differences:
            return
        self.report.differences.append(difference)
        if len(self.report.differences) >= MAX_DIFFERENCES:
            raise EnoughError

    def count(self, what: str) -> None:
        """Count one more examined ``what``."""
        self.report.counts[what] += 1
        if self.report.counts[what] % PROGRESS_EVERY == 0:
            self._progress(what, self.report.counts[what])


@dataclass(frozen=True, slots=True)
class Examined:
    """A data directory under examination, and where its data began."""

    origin: str
    ledger: Ledger
    begun: Beginning
    findings: Findings
