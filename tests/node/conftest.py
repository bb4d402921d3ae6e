"""What the tests of the node share with the contracts."""

from __future__ import annotations

from tests.contracts.conftest import name

__all__ = ["name"]
