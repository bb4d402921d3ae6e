"""The lies. Each module registers the lies of one kind."""

from __future__ import annotations

import importlib

from tools.lies.registry import SCENES

MODULES = (
    "records", "heads", "lookups", "batches", "clients", "memory", "erasures", "owners", "receipts",
    "followers", "tiles", "witnesses", "views", "harm",
)  # fmt: skip


def load() -> None:
    """Register all lies, in the order of the table."""
    for name in MODULES:
        importlib.import_module(f"{__name__}.{name}")
    # Whoever imports one module alone registers its lies first.
    order = [f"{__name__}.{name}" for name in MODULES]
    SCENES.sort(key=lambda scene: order.index(scene.tell.__module__))
