"""What the node counts, in plain integers on the event loop's thread, since every read and append passes.

Only what is measured once per group commit is a histogram of the library's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Histogram

SUBSCRIBE = "Streams.Subscribe"
_BATCHES = (1, 2, 5, 10, 20, 50, 100, 200, 500)
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


@dataclass(slots=True)
class Traffic:
    """One kind of call: how many are open, what was sent in answer, how they ended."""

    open: int = 0
    messages: int = 0
    bytes: int = 0
    ended: dict[str, int] = field(default_factory=dict)

    def end(self, status: str) -> None:
        """A call ended with ``status``, a name of gRPC's."""
        self.open -= 1
        self.ended[status] = self.ended.get(status, 0) + 1


class Counts:
    """All that is counted. ``calls`` are by method, reads without end apart as ``SUBSCRIBE``."""

    def __init__(self) -> None:
        self.calls: dict[str, Traffic] = {}
        self.appends = 0
        self.events = 0
        self.bytes = 0
        self.registry = CollectorRegistry()
        self.batches = Histogram(
            "kt_node_commit_appends", "Appends that shared one sync", buckets=_BATCHES, registry=self.registry
        )
        self.syncs = Histogram(
            "kt_node_sync_seconds", "Time of one sync", buckets=_SECONDS, registry=self.registry
        )

    def traffic(self, kind: str) -> Traffic:
        """The counts of one kind of call: a method's name, or ``SUBSCRIBE``."""
        return self.calls.setdefault(kind, Traffic())
