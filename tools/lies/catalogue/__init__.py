"""The lies. Each module registers the lies of one kind."""

from __future__ import annotations

import importlib

MODULES = (
    "records", "heads", "lookups", "batches", "clients", "memory", "erasures", "owners", "receipts",
    "followers", "tiles", "witnesses", "views", "harm",
)  # fmt: skip


def load() -> None:
    """Register all lies, in the order of the table."""
    for name in MODULES:
        importlib.import_module(f"{__name__}.{name}")
