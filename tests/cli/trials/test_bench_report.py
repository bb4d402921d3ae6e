"""The reports of the benchmarks: their shape and their limits, not their figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kt_es.cli.trials.bench import bench_map
from kt_es.cli.trials.bench_report import Row, report, report_lines


def test_a_row_is_the_median_of_its_runs() -> None:
    assert Row.of("x", "µs", [3, 1, 2]) == Row("x", 2, "µs", None, (3, 1, 2))


@pytest.mark.parametrize(
    ("unit", "limit", "kept"),
    [("updates/s", 5, True), ("updates/s", 6, False), ("MB", 5, True), ("MB", 4, False), ("MB", None, True)],
)
def test_rates_have_a_least_and_all_else_a_most(unit: str, limit: float | None, kept: bool) -> None:
    assert Row.of("x", unit, [5], limit).kept is kept


def test_reports_name_what_was_measured() -> None:
    rows = [Row.of("x", "updates/s", [5], 6), Row.of("y", "MB", [5])]
    document = json.loads(json.dumps(report("map", rows)))
    assert document["bench"] == "map"
    assert "CPUs" in document["machine"]
    assert document["client"].startswith(("esdbclient ", "kurrentdbclient "))
    assert document["rows"] == [
        {"name": "x", "value": 5, "unit": "updates/s", "limit": 6, "runs": [5]},
        {"name": "y", "value": 5, "unit": "MB", "limit": None, "runs": [5]},
    ]
    assert "✗ at least 6" in "\n".join(report_lines("map", rows))


def test_the_map_bench_measures_all_of_it(tmp_path: Path) -> None:
    rows = bench_map(tmp_path, entries=300, epoch=100, runs=2)
    assert {row.name: len(row.runs) for row in rows} == {
        "updates_per_second": 2,
        "time_per_update": 2,
        "bulk_load": 1,
        "disk_per_entry": 1,
        "time_per_proof": 2,
        "siblings_per_proof": 2,
        "peak_memory": 1,
    }
    assert all(row.value > 0 for row in rows)


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere the system reports the peak of one process only"
)
def test_the_peak_of_memory_is_not_that_of_the_process_that_started_this_one() -> None:
    held = b"x" * (256 << 20)
    asked = "from kt_es.cli.trials.bench_report import peak_memory; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert len(held) >> 20 > float(done.stdout) > 1
