"""``kt bench frontend`` with few accounts: real processes, and the real client beside the load."""

from __future__ import annotations

import sysconfig
import time
from pathlib import Path

import pytest

from kt_es.cli.trials.bench_frontend import bench_frontend
from kt_es.cli.trials.constant import constant_server
from kt_es.cli.trials.load import measure

EACH = (
    *("lookups, each label once", "lookups", "lookup, p50", "lookup, p99"),
    *("lookup beside submissions, p50", "lookup beside submissions, p99"),
    *("submissions, decided and proven", "submissions in batches of 256"),
)
"""What is measured of each front end."""


@pytest.mark.timeout(600)  # many processes, one after the other
def test_front_ends_of_two_environments_are_measured_by_turns(tmp_path: Path) -> None:
    notes: list[str] = []
    kt = str(Path(sysconfig.get_path("scripts")) / "kt")
    rows = bench_frontend(
        tmp_path, accounts=40, submissions=10, seconds=0.2, turns=1, watchers=2, beside=kt, note=notes.append
    )
    found = {row.name: row.value for row in rows}
    assert set(found) == {
        *(f"{side}: {name}" for side in ("here", "beside") for name in EACH),
        *("constant answer of the same size", "lookups to constant answers"),
        *("lookups, here to beside", "submissions, here to beside"),
        "submissions in batches, here to single beside",
        *("here: lookups beside 2 monitors", "here: lookups while no monitor looks"),
        "lookups that the monitors cost",
    }
    # The last one is a difference, which the machine may turn.
    assert all(value > 0 for name, value in found.items() if name != "lookups that the monitors cost")
    ratio = found["here: lookups"] / found["constant answer of the same size"]
    assert found["lookups to constant answers"] == pytest.approx(ratio, abs=2e-3)
    assert "40 accounts are published" in notes
    assert [note.partition(":")[0] for note in notes if note.startswith("turn")] == [
        f"turn 1 of 1, {side}" for side in ("here", "beside")
    ]


def test_a_rate_is_kept_and_every_request_is_sent() -> None:
    with constant_server(b"x" * 100) as where:
        began = time.perf_counter()
        done = measure(where, "/", [b"{}"] * 40, connections=4, rate=80.0)
        seconds = time.perf_counter() - began
    assert done.answers == 40
    # Nine pauses of 50 ms for each of four connections, at least.
    assert seconds >= 0.45
