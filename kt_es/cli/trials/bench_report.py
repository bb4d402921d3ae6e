"""The report of ``kt bench``: rows of measurements, and their machine (docs/DESIGN.md, section 7)."""

from __future__ import annotations

import math
import os
import platform
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from kt_es.eventstore.driver import LIBRARY


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement: the median ``value`` of ``runs`` in ``unit``, and its ``limit``, if any.

    A rate, with a unit that ends in ``/s``, must be at least its limit. Any other value must be at most it.
    """

    name: str
    value: float
    unit: str
    limit: float | None
    runs: tuple[float, ...]

    @classmethod
    def of(cls, name: str, unit: str, runs: Sequence[float], limit: float | None = None) -> Row:
        """Make the row of ``runs``, at least one."""
        return cls(name, round(median(runs), 3), unit, limit, tuple(round(run, 3) for run in runs))

    @property
    def kept(self) -> bool:
        """Whether the limit is kept, or there is none."""
        if self.limit is None:
            return True
        return self.value >= self.limit if self.unit.endswith("/s") else self.value <= self.limit


def machine() -> str:
    """Describe the machine in one line: system, architecture, usable processors, Python."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{platform.system()} {platform.release()} {platform.machine()}, {usable} CPUs, "
        f"{platform.python_implementation()} {platform.python_version()}"
    )


def client() -> str:
    """Return the client library of the event log with its version. Its work is part of every rate."""
    return f"{LIBRARY} {version(LIBRARY)}"


def peak_memory() -> float:
    """Return the most memory that this process ever had resident, in MB.

    On Linux not by ``getrusage``, which begins with the peak of the process that started this one.
    """
    most = resident_memory(os.getpid())[1]
    if math.isnan(most):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
            1 << (20 if sys.platform == "darwin" else 10)
        )
    return most


def resident_memory(pid: int) -> tuple[float, float]:
    """Return the resident memory of a process, now and at most, in MB; nan if the system reports none."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return float("nan"), float("nan")
    kilobytes = dict(line.split(":", 1) for line in status.splitlines())
    now, most = (int(kilobytes[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return now, most


def family_memory(pid: int) -> float:
    """Return the sum of the most memory that a process and its present children had resident, in MB.

    Memory that they share counts for each of them. nan if the system reports none.
    """
    try:
        children = [
            int(child)
            for thread in Path(f"/proc/{pid}/task").iterdir()
            for child in (thread / "children").read_text().split()
        ]
    except OSError:
        return float("nan")
    return sum(resident_memory(one)[1] for one in (pid, *children))


def report(bench: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the report for ``--json``."""
    return {
        "bench": bench,
        "machine": machine(),
        "client": client(),
        "rows": [asdict(row) for row in rows],
    }


def report_lines(bench: str, rows: Sequence[Row]) -> list[str]:
    """Return the report for people: a line for each row, with its limit and whether it is kept."""
    lines = [f"{bench} on {machine()}, {client()}"]
    for row in rows:
        line = f"  {row.name:<32}{row.value:>14,.1f} {row.unit}"
        if row.limit is not None:
            sign, bound = ("✓" if row.kept else "✗"), ("at least" if row.unit.endswith("/s") else "at most")
            line += f"  {sign} {bound} {row.limit:,g}"
        lines.append(line)
    return lines
