"""What the tests of the node share with the contracts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.conftest import name
from tests.contracts.nodes import NodeProcess

__all__ = ["name"]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path / "node") as process:
        yield process
