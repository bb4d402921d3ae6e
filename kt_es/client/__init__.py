"""The client: believes nothing that it is told before it has verified it (docs/DESIGN.md, section 4).

The names below are imported when they are first used. So the verifier, ``kt_es.client.trust``, needs the
standard library, cbor2 and PyNaCl alone, and nothing of what the client fetches and stores with.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kt_es.client.asynchronous import AsyncClient
    from kt_es.client.client import Client
    from kt_es.client.history import History
    from kt_es.client.publishing import Published
    from kt_es.client.state import FileStateStore, MemoryStateStore, StateStore
    from kt_es.client.trust import Lookup
    from kt_es.client.trusted import Pinned
    from kt_es.client.vouching import Mine
    from kt_es.client.watching import Change, Watcher

__all__ = [
    "AsyncClient",
    "Change",
    "Client",
    "FileStateStore",
    "History",
    "Lookup",
    "MemoryStateStore",
    "Mine",
    "Pinned",
    "Published",
    "StateStore",
    "Watcher",
]

_MODULES = {
    "AsyncClient": "asynchronous",
    "Change": "watching",
    "Client": "client",
    "FileStateStore": "state",
    "History": "history",
    "Lookup": "trust",
    "MemoryStateStore": "state",
    "Mine": "vouching",
    "Pinned": "trusted",
    "Published": "publishing",
    "StateStore": "state",
    "Watcher": "watching",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
