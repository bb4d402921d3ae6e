"""The client of a directory: verifies every answer before it stores or returns it.

The modules, from the pure verifier up to the clients. A module imports only modules above it.

The verifier (no network, no disk, no clock; docs/DESIGN.md, section 4):

- ``trusted``: the state between two answers: pinned key, chain of configs, last checkpoint, last head
- ``heads``: steps "config", "checkpoint", "rollback", "consistency", "map head", "freshness"
- ``entries``: steps "map", "entry", "opening", "commitment", "signatures", "memory"
- ``trust``: a lookup and a saved proof, all steps in order
- ``batches``: many labels under one head
- ``ranges``: step "history" for consecutive epochs

State on disk:

- ``database``: small values in SQLite, by kind and key
- ``state``: the state towards one directory; ``states``: signing keys and states of one person
- ``history``: step "history" for all versions of a label, and the versions that are kept
- ``changes``: what a change signs, and whether its owner knows all the keys in it

The network (the JSON of requests and answers is declared in ``kt_es.api``):

- ``deadlines``, ``attempts``, ``transport``: HTTP with bounded time, bounded answers and retries
- ``directory``: how the state of a directory begins, grows and is stored
- ``session``: questions: lookup, head, range, history; ``batching``: many labels; ``statuses``: submissions
- ``elsewhere``, ``ahead``, ``checkpoints``, ``comparing``: what others were shown, beside the trusted log
- ``vouching``: who vouches for the trusted log, and whether that is enough

What programs use:

- ``registering``: what a directory asks for before the first version of a label
- ``publishing``, ``submitting``: the steps of a change, and many submissions in few requests
- ``following``: each new head
- ``client``, ``asynchronous``: ``Client`` and ``AsyncClient``
- ``watching``; ``planning``, ``bulk``: accounts over time, and many accounts at once
- ``offline``: proofs and evidence from files

The names below are imported when they are first used. So the verifier needs the standard library, cbor2 and
PyNaCl alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kt_es.client.asynchronous import AsyncClient
    from kt_es.client.changes import Mine
    from kt_es.client.client import Client
    from kt_es.client.history import History
    from kt_es.client.publishing import Published
    from kt_es.client.state import FileStateStore, MemoryStateStore, StateStore
    from kt_es.client.trust import Lookup
    from kt_es.client.trusted import Pinned
    from kt_es.client.vouching import Policies, Vouched
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
    "Policies",
    "Published",
    "StateStore",
    "Vouched",
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
    "Mine": "changes",
    "Pinned": "trusted",
    "Policies": "vouching",
    "Published": "publishing",
    "StateStore": "state",
    "Vouched": "vouching",
    "Watcher": "watching",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
