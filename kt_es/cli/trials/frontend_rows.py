"""What ``kt bench frontend`` measured of one front end, and its rows of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from kt_es.api.batches import MAX_SUBMISSIONS
from kt_es.cli.trials.bench_report import Row
from kt_es.cli.trials.load import Load

MOST_LOST = 10.0
"""How much of its lookups a second monitors may cost a front end, in percent."""


@dataclass(slots=True)
class Measured:
    """What the turns of one front end showed."""

    first: list[float] = field(default_factory=list)  # lookups/s, each label once
    again: list[Load] = field(default_factory=list)
    paced: list[Load] = field(default_factory=list)  # at half the load, beside submissions
    submitted: list[float] = field(default_factory=list)  # submissions/s, decided and proven
    batched: list[float] = field(default_factory=list)  # the same in batches, if the version takes them
    alone: list[float] = field(default_factory=list)  # lookups/s while the monitors are stopped
    watched: list[float] = field(default_factory=list)  # lookups/s while they look, by turns


def rates(measured: Measured) -> list[float]:
    return [turn.rate for turn in measured.again]


def ratio(name: str, some: Sequence[float], others: Sequence[float]) -> Row:
    return Row.of(name, "times", [median(some) / median(others)])


def rows(name: str, measured: Measured) -> list[Row]:
    return [
        Row.of(f"{name}: lookups, each label once", "lookups/s", measured.first),
        Row.of(f"{name}: lookups", "lookups/s", rates(measured)),
        Row.of(f"{name}: lookup, p50", "ms", [turn.half for turn in measured.again]),
        Row.of(f"{name}: lookup, p99", "ms", [turn.most for turn in measured.again]),
        Row.of(f"{name}: lookup beside submissions, p50", "ms", [turn.half for turn in measured.paced]),
        Row.of(f"{name}: lookup beside submissions, p99", "ms", [turn.most for turn in measured.paced]),
        Row.of(f"{name}: submissions, decided and proven", "submissions/s", measured.submitted),
        *(
            [
                Row.of(
                    f"{name}: submissions in batches of {MAX_SUBMISSIONS}", "submissions/s", measured.batched
                )
            ]
            if measured.batched
            else []
        ),
    ]


def watched_rows(measured: Measured, monitors: int) -> list[Row]:
    """Return what ``monitors`` cost the front end. Each turn is compared with itself: the machine drifts."""
    turns = zip(measured.watched, measured.alone, strict=True)
    lost = [100 * (1 - beside / alone) for beside, alone in turns]
    return [
        Row.of("here: lookups while no monitor looks", "lookups/s", measured.alone),
        Row.of(f"here: lookups beside {monitors} monitors", "lookups/s", measured.watched),
        Row.of("lookups that the monitors cost", "%", [median(lost)], MOST_LOST),
    ]
