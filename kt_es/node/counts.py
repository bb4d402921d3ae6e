"""The counts of a node: plain integers on the event loop's thread, because every read and append is counted.

Only values that are measured once per group commit are histograms of the library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kt_es.node.store.storage import EVENTS, RANGES
from kt_es.process.exposition import Samples

SUBSCRIBE = "Streams.Subscribe"
_BATCHES = (1, 2, 5, 10, 20, 50, 100, 200, 500)
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


@dataclass(slots=True)
class Traffic:
    """Counts of one kind of call: open calls, answers sent, and how calls ended."""

    open: int = 0
    messages: int = 0
    bytes: int = 0
    ended: dict[str, int] = field(default_factory=dict)

    def end(self, status: str) -> None:
        """Count a call that ended with ``status``, gRPC's name of it."""
        self.open -= 1
        self.ended[status] = self.ended.get(status, 0) + 1


class Counts:
    """All counts of a node. ``calls`` are by method, with catch-up subscriptions apart as ``SUBSCRIBE``."""

    def __init__(self) -> None:
        self.calls: dict[str, Traffic] = {}
        self.appends = 0
        self.events = 0
        self.bytes = 0
        samples = Samples()
        self.registry = samples.registry
        self._batches = samples.histogram(
            "kt_node_commit_appends", "Appends that shared one sync", buckets=_BATCHES
        )
        self._syncs = samples.histogram("kt_node_sync_seconds", "Time of one sync", buckets=_SECONDS)

    def traffic(self, kind: str) -> Traffic:
        """Return the counts of one kind of call: a method's name, or ``SUBSCRIBE``."""
        return self.calls.setdefault(kind, Traffic())

    def synced(self, puts: Sequence[tuple[bytes, bytes]], seconds: float) -> None:
        """Count a group commit: ``puts`` are on disk after a sync of so many ``seconds``."""
        self._syncs.observe(seconds)
        sizes = [len(value) for key, value in puts if key[0] == EVENTS[0]]
        self.events += len(sizes)
        self.bytes += sum(sizes)
        if sizes:
            appends = sum(key[0] == RANGES[0] for key, _ in puts)
            self.appends += appends
            self._batches.observe(appends)
