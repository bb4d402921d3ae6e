"""Observations from outside while the directory runs: all heads that were shown, and acknowledgements.

Safe for threads: writers and watchers add observations, and the checks read them.
"""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from dataclasses import dataclass

from kt_es.crypto.hashes import sha256
from tools.torture.directory import TortureError


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """An acknowledged submission. ``verdict`` is None if the front end only said that it is in the queue."""

    item: bytes  # SHA-256 of the mutation's bytes
    verdict: str | None


class Seen:
    """Every head that was shown anywhere, one for each epoch, and the acknowledgements not yet checked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heads: dict[int, tuple[bytes, str]] = {}
        self._receipts: list[Acknowledgement] = []
        self._events: list[uuid.UUID] = []
        self._problems: list[str] = []
        self.counts: Counter[str] = Counter()

    def head(self, epoch: int, smh: bytes, where: str) -> None:
        """Note that a head was shown. A different head for the same epoch is a problem."""
        with self._lock:
            self.counts[f"heads seen in {where}"] += 1
            first, place = self._heads.setdefault(epoch, (smh, where))
            if first != smh:
                self._problems.append(
                    f"two heads of epoch {epoch}: {first.hex()} in {place}, {smh.hex()} in {where}"
                )

    def receipt(self, mutation: bytes, verdict: str | None) -> None:
        with self._lock:
            self.counts["submissions acknowledged"] += 1
            self._receipts.append(Acknowledgement(sha256(mutation), verdict))

    def appended(self, event: uuid.UUID) -> None:
        with self._lock:
            self.counts["appends to the queue acknowledged"] += 1
            self._events.append(event)

    def count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def problem(self, problem: str) -> None:
        """Note a problem. The next ``check`` raises it and ends the torture."""
        with self._lock:
            self._problems.append(problem)

    def check(self) -> None:
        with self._lock:
            if self._problems:
                raise TortureError("; ".join(self._problems))

    def heads(self) -> dict[int, bytes]:
        with self._lock:
            return {epoch: smh for epoch, (smh, _) in self._heads.items()}

    def take_acknowledged(self) -> tuple[list[Acknowledgement], list[uuid.UUID]]:
        """Return everything acknowledged since the last call."""
        with self._lock:
            taken = self._receipts, self._events
            self._receipts, self._events = [], []
            return taken
