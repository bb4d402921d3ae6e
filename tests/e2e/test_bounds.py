"""A long epoch through a real node and signer: bounded memory, an acknowledged queue, epochs that go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.bounds.running import breaches, measure

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(("kind", "items"), [("garbage", 20_000), ("oversize", 200)])
def test_a_long_epoch_stays_bounded(tmp_path: Path, kind: str, items: int) -> None:
    said: list[str] = []
    figures = measure(tmp_path, kind, items, said.append, 90.0)
    # Bounds, not figures: what is measured is far below.
    assert breaches(figures) == [], said
