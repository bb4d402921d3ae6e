"""Figures of ``kt bench all``: what was measured at one size, beside the limits of the same run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from kt_es.cli.trials.bench_report import client, machine

PER_SECOND = "/s"
AKD_PUBLISH = "AKD in memory"
LIMITS = {
    "hashing": "hashing alone, one processor",
    "ed25519": "Ed25519 alone, all processors",
    "constant": "constant answer",
    "appends": "the log's own appends",
    "disk": "syncs of a file alone",
    "akd": AKD_PUBLISH,
}
"""What is measured beside a figure. AKD is another directory, and no limit."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement at one size.

    Attributes:
        part: What was measured: ``map``, ``signer``, ``replica``, ``front end`` or ``log``.
        name: What of it.
        unit: Unit of ``runs`` and ``limits``.
        entries: Entries in the map, or as many in the log.
        runs: The value of each turn, in order; at least one.
        limits: What the machine can do at most, by name: the values of the same turns.
        load: Processes that wanted a processor in the minute before the end of the measurement.
    """

    part: str
    name: str
    unit: str
    entries: int
    runs: tuple[float, ...]
    limits: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    load: float = 0.0

    @property
    def value(self) -> float:
        """The median of the turns."""
        return median(self.runs)

    def limit(self, name: str) -> float:
        """Return the median of a limit."""
        return median(self.limits[name])

    def share(self, name: str) -> float:
        """Return the value as a part of a limit: 1 is all that the machine can do."""
        return self.value / self.limit(name)


def document(figures: Sequence[Figure]) -> dict[str, Any]:
    """Return the report for ``--json``."""
    return {
        "bench": "all",
        "machine": machine(),
        "client": client(),
        "figures": [
            {
                **asdict(figure),
                "value": figure.value,
                "shares": {name: round(figure.share(name), 4) for name in figure.limits},
            }
            for figure in figures
        ],
    }


def table(figures: Sequence[Figure]) -> list[str]:
    """Return the report for people: figures in their order, each with a line for each limit."""
    lines = [
        f"all on {machine()}, {client()}",
        f"  {'part':<10}{'figure':<26}{'entries':>12}{'median':>12}  {'unit':<14}{'least':>12}{'most':>12}"
        f"{'load':>6}  limit of the same run",
    ]
    for figure in figures:
        line = (
            f"  {figure.part:<10}{figure.name:<26}{figure.entries:>12,}{_shown(figure.value):>12}  "
            f"{figure.unit:<14}{_shown(min(figure.runs)):>12}{_shown(max(figure.runs)):>12}{figure.load:>6.1f}"
        )
        limits = [
            f"{name} {_shown(figure.limit(name))}, share {figure.share(name):.2f}" for name in figure.limits
        ]
        lines.append("  ".join([line, *limits[:1]]))
        lines += [" " * (len(line) + 2) + words for words in limits[1:]]
    return lines


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 1_000 else f"{value:,.1f}"
