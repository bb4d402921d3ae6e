"""Numbers in sentences."""

from __future__ import annotations

import pytest

from kt_es.errors import counted


@pytest.mark.parametrize(
    ("number", "things", "text"),
    [(0, "heads", "0 heads"), (1, "heads", "1 head"), (2, "entries", "2 entries"), (1, "entries", "1 entry")],
)
def test_one_is_singular(number: int, things: str, text: str) -> None:
    assert counted(number, things) == text
