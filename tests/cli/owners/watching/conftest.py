"""A directory, ``kt`` asking it, and a webhook."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.owners.watching.people import (
    WatchingKt,
    Webhook,
)
from tests.reference.directory import Directory


@pytest.fixture
def directory() -> Directory:
    """bob in epoch 1, alice in epoch 2."""
    directory = Directory()
    for user in ("bob", "alice"):
        directory.put_user(user)
        directory.advance()
    return directory


@pytest.fixture
def kt(directory: Directory, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> WatchingKt:
    return WatchingKt(directory, tmp_path, capsys, monkeypatch)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    made = Webhook(204)
    yield made
    made.close()
