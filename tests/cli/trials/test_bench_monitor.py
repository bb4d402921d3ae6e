"""``kt bench monitor`` with few entries: a real node and signer, tiles on a web server, real replays."""

from __future__ import annotations

from pathlib import Path

import pytest

from kt_es.cli.trials.bench_monitor import LIMIT, bench_monitor
from kt_es.ledger.verifiers import usable_processors


def test_replays_over_tiles_are_measured_beside_those_over_the_event_log(tmp_path: Path) -> None:
    notes: list[str] = []
    rows = {row.name: row for row in bench_monitor(tmp_path, 600, runs=1, note=notes.append)}
    assert list(rows) == [
        *("over tiles", "over the event log", "Ed25519 alone, all processors"),
        *("share of that limit, tiles", "share of that limit, log", "entries"),
        *("peak memory over tiles", "the same, 1/10 of the entries", "peak memory over the event log"),
    ]
    assert all(row.value > 0 for row in rows.values())
    assert rows["entries"].value == 600
    alone = rows["Ed25519 alone, all processors"].value
    two = alone * min(2, usable_processors()) / usable_processors()
    assert rows["over tiles"].limit == pytest.approx(LIMIT * two)
    for source, name in (("tiles", "over tiles"), ("log", "over the event log")):
        share = rows[f"share of that limit, {source}"].value
        assert share == pytest.approx(100 * rows[name].value / alone, rel=1e-3)
    assert len(notes) == 2
