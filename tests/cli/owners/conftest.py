"""alice's directory, and her terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.owners.people import KEY, Kt
from tests.reference.clocks import Pauses
from tests.reference.directory import Directory


@pytest.fixture
def directory() -> Directory:
    """alice in epoch 1, with one key."""
    directory = Directory()
    directory.put_user("alice")
    directory.advance()
    return directory


@pytest.fixture(autouse=True)
def in_memory(pauses: Pauses) -> None:
    """All directories here are in memory."""


@pytest.fixture
def kt(directory: Directory, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Kt:
    kt = Kt(directory, tmp_path, capsys, monkeypatch)
    kt.keys.add("default", KEY)
    return kt
