"""What the signer tells of its work, to whoever counts it. The loop knows nothing of metrics.

All of it is called in the signer's thread, and must neither block nor raise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from kt_es.formats.configs import Config
from kt_es.formats.heads import MapHead


@dataclass(frozen=True, slots=True)
class Finished:
    """An epoch that is published, committed and acknowledged; ``phases`` in seconds by name."""

    head: MapHead
    items: int
    verdicts: Mapping[str, int]
    phases: Mapping[str, float]


class Observer(Protocol):
    """Times are seconds of the monotonic clock, revisions those of the queue."""

    def seen(self, last: int) -> None:
        """The queue has an event of revision ``last``."""

    def decided(self, revision: int, staged: int, at: float) -> None:
        """An event was decided; the epoch has ``staged`` items now. After an outage it is decided again."""

    def sealed(self, queue_next: int, at: float) -> None:
        """A head of this signer or another one covers the queue below ``queue_next``."""

    def finished(self, epoch: Finished) -> None: ...

    def configured(self, config: Config) -> None:
        """The intervals that are promised now."""

    def role(self, *, active: bool) -> None: ...

    def outage(self, kind: str) -> None:
        """The signer starts anew because of ``kind``: ``log``, ``disk`` or ``silence``."""


class Silent:
    """An observer that ignores everything."""

    def seen(self, last: int) -> None: ...

    def decided(self, revision: int, staged: int, at: float) -> None: ...

    def sealed(self, queue_next: int, at: float) -> None: ...

    def finished(self, epoch: Finished) -> None: ...

    def configured(self, config: Config) -> None: ...

    def role(self, *, active: bool) -> None: ...

    def outage(self, kind: str) -> None: ...
