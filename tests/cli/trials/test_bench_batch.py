"""``kt bench batch`` with few entries: a real node, a real front end, the real client."""

from __future__ import annotations

from pathlib import Path

import pytest

from kt_es.cli.trials.bench_batch import WANTED, bench_batch


def test_batches_are_measured_beside_single_lookups(tmp_path: Path) -> None:
    notes: list[str] = []
    rows = bench_batch(
        tmp_path, 400, sample=220, strangers=200, sizes=(10, WANTED), seconds=0.1, turns=1, note=notes.append
    )
    found = {row.name: row for row in rows}
    batches = ("batches of 10", "batches of 100")
    assert set(found) == {
        *("single lookups", *batches),
        *(f"{name}, processor time" for name in ("single lookups", *batches)),
        *(f"{name}, answer" for name in ("single lookups", *batches)),
        *(f"{name}, beside single ones" for name in batches),
        *("single lookups, new labels", "batches of 100, new labels", "entries"),
    }
    assert found["batches of 100"].limit == pytest.approx(found["single lookups"].value * 5, rel=1e-4)
    sizes = [found[f"{name}, answer"].value for name in ("single lookups", *batches)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(notes) == 4
