"""``kt bench node`` measures a real node; its figures are not judged here."""

from __future__ import annotations

from pathlib import Path

from kt_es.cli.trials.bench_node import BATCH, LIMITS, Sizes, bench_node


def test_every_measurement_has_its_limit_and_the_nodes_own_cost(tmp_path: Path) -> None:
    rows = bench_node(tmp_path, Sizes(single=10, concurrent=16, bulk=BATCH, large=4), runs=1)
    rates = {row.name: row for row in rows if row.unit == "events/s"}
    assert {name: row.limit for name, row in rates.items()} == LIMITS
    assert all(row.value > 0 for row in rates.values())
    costs = [row.name for row in rows if row.unit == "µs"]
    assert costs in ([], [f"node alone: {name}" for name in LIMITS])
