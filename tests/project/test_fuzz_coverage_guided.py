"""A short coverage-guided run over all targets in three processes; ``make fuzz`` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.fuzz.running import fuzz
from tools.fuzz.targets import ANY

pytest.importorskip(
    "atheris", reason="atheris, the optional group fuzz, is not installed: no fuzzing by coverage"
)

SEED = 20_240_101
# A busy machine's pauses are no findings; what hangs is one all the same.
PATIENCE = 60


@pytest.mark.parametrize(("target", "seconds"), [(ANY, 8), ("queue", 5), ("decision", 5)])
def test_a_short_run_finds_nothing(target: str, seconds: int, tmp_path: Path) -> None:
    outcome = fuzz(target, seconds, tmp_path, SEED, PATIENCE)
    print(f"seed {SEED}: {outcome.executions} executions, {outcome.per_second}/s, {outcome.coverage} edges")
    assert not outcome.failed, outcome.report
    assert not outcome.findings
    assert outcome.executions > 0
    assert outcome.coverage > 0
