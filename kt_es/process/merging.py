"""One page of metrics for several processes that serve together.

Counters and histograms are added up, and what ended processes had counted stays counted, so that no sum goes
back. Of a gauge, the processes that run count, and its name tells how (``_LEAST``, ``_SUMS``): the largest
value by default.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

Labels = tuple[tuple[str, str], ...]
Values = Mapping[tuple[str, Labels], float]

# A front end is as far as its process that is furthest behind.
_LEAST = {"kt_epoch", "kt_log_reachable", "kt_tls_certificate_end_seconds", "process_start_time_seconds"}
_LEAST |= {"process_max_fds"}
_SUMS = {"process_virtual_memory_bytes", "process_resident_memory_bytes", "process_open_fds"}
_ADDED = ("counter", "histogram")


@dataclass(frozen=True, slots=True)
class Family:
    """The samples of one metric of one process, by name and labels."""

    name: str
    help: str
    type: str
    values: Values


def snapshot(registry: CollectorRegistry) -> list[Family]:
    """Return what ``registry`` has now. The times at which counters were made are left out."""
    return [
        Family(
            metric.name,
            metric.documentation,
            metric.type,
            {
                (sample.name, tuple(sorted(sample.labels.items()))): sample.value
                for sample in metric.samples
                if not sample.name.endswith("_created")
            },
        )
        for metric in registry.collect()
    ]


@dataclass(slots=True, eq=False)
class Merged(Collector):
    """The latest snapshot of each process by its name, and the counts of those that have ended.

    Safe for threads.
    """

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _live: dict[str, list[Family]] = field(default_factory=dict)
    _ended: dict[str, Family] = field(default_factory=dict)

    def put(self, process: str, families: list[Family]) -> None:
        with self._lock:
            self._live[process] = families

    def end(self, process: str) -> None:
        """Keep the counts of a process that has ended."""
        with self._lock:
            for new in self._live.pop(process, ()):
                if new.type in _ADDED:
                    old = self._ended.get(new.name)
                    self._ended[new.name] = new if old is None else _merged([old, new])

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            by_name: dict[str, list[Family]] = {name: [kept] for name, kept in self._ended.items()}
            for families in self._live.values():
                for found in families:
                    by_name.setdefault(found.name, []).append(found)
        for families in by_name.values():
            merged = _merged(families)
            metric = Metric(merged.name, merged.help, merged.type)
            for (sample, labels), value in merged.values.items():
                metric.add_sample(sample, dict(labels), value)
            yield metric


def page(collectors: Iterable[Collector]) -> bytes:
    """Return the metrics of ``collectors`` as text for Prometheus."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return generate_latest(registry)


def _merged(families: list[Family]) -> Family:
    first = families[0]
    values: dict[tuple[str, Labels], float] = {}
    for each in families:
        for key, value in each.values.items():
            known = values.get(key)
            values[key] = value if known is None else _together(first, known, value)
    return Family(first.name, first.help, first.type, values)


def _together(of: Family, one: float, other: float) -> float:
    if of.type in _ADDED or of.name in _SUMS:
        return one + other
    return min(one, other) if of.name in _LEAST else max(one, other)
