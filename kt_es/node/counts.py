"""What the node counts: plain integers on the event loop's thread, since every read and append is counted.

Only what is measured once per group commit is a histogram of the library.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Histogram

from kt_es.node.store.storage import EVENTS, RANGES, NodeStorage

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


class CountingStorage:
    """``storage`` that counts its writes and times its syncs."""

    def __init__(self, storage: NodeStorage, counts: Counts) -> None:
        self._storage = storage
        self._counts = counts
        self.get = storage.get
        self.get_many = storage.get_many
        self.scan: Callable[[bytes, bytes], Iterator[tuple[bytes, bytes]]] = storage.scan
        self.scan_back = storage.scan_back
        self.may_recover = storage.may_recover
        self.recover = storage.recover
        self.close = storage.close

    def write(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes]) -> None:
        """See ``storage.Storage``."""
        self._storage.write(puts, deletes)
        sizes = [len(value) for key, value in puts if key[0] == EVENTS[0]]
        counts = self._counts
        counts.events += len(sizes)
        counts.bytes += sum(sizes)
        if sizes:
            appends = sum(key[0] == RANGES[0] for key, _ in puts)
            counts.appends += appends
            counts.batches.observe(appends)

    def sync(self) -> None:
        """See ``storage.Storage``."""
        began = time.perf_counter()
        self._storage.sync()
        self._counts.syncs.observe(time.perf_counter() - began)
