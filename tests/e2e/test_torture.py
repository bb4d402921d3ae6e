"""A short torture: real processes under a few rounds of faults, drawn from a seed that is printed."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tools.torture.rounds import Options, Torture

pytestmark = pytest.mark.e2e


@pytest.mark.timeout(300)
def test_a_few_rounds_of_faults_are_survived(tmp_path: Path) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}: make torture ROUNDS=2 SEED={seed} FROZEN=0")
    torture = Torture(Options(rounds=2, seed=seed, seconds=40, frozen=0), tmp_path, print)
    torture.run()
    result = torture.result
    assert result.rounds >= 1
    assert sum(result.injected.values()) >= result.rounds
    assert result.counts["submissions acknowledged"] > 0
    assert result.counts["appends to the queue acknowledged"] > 0
    assert len(result.recoveries) == result.rounds
