"""A short torture of the node: killed at random moments under writers and subscribers."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tools.node_torture.rounds import Torture


@pytest.mark.timeout(400)
def test_a_few_kills_lose_double_skip_and_reorder_nothing(tmp_path: Path) -> None:
    seed = secrets.randbits(32)
    print(f"python -m tools.node_torture --rounds 5 --seed {seed}")
    torture = Torture(tmp_path, seed, 5, print)
    torture.run()
    assert torture.result.rounds == 5
    assert torture.result.appends > 0
    assert torture.result.connections >= 4
