"""Three published epochs of forty users, and a signer over a copy of them that has to refuse or go on."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import ConfigError, DivergenceError, VerificationError
from kt_es.eventstore.streams import ANY, content_event
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.rows import Committed, StateTable
from kt_es.ledger.store import Store
from kt_es.ledger.tables import FAMILIES
from signer.keys import KeyRing
from signer.loop import Signer
from tests.builders import (
    ORIGIN,
    SIGNER,
    SIGNER_KEY,
    mutation,
    next_mutation,
    public,
)
from tests.reference.memory_log import MemoryLog
from tests.reference.signing import LIMITS, NAMES, data_of, effects, new_log, submit

USERS = [f"user{number}" for number in range(40)]


def sign_epoch(log: MemoryLog, ledger: Ledger) -> None:
    """Everything that is in the queue, and a marker behind it, as the signer does it."""
    signer = new_signer(log, ledger)
    signer.recover()
    signer.advance()
    epoch = ledger.committed.epoch
    signer._last_marker_at -= 3600
    while ledger.committed.epoch == epoch:
        signer.is_behind = True
        signer.advance()


def new_signer(log: MemoryLog, ledger: Ledger, keys: KeyRing | None = None) -> Signer:
    ring = KeyRing([SIGNER]) if keys is None else keys
    return Signer(log, NAMES, ledger, ring, effects=effects(lambda: log), limits=lambda: LIMITS)


def filled(store: Store) -> MemoryLog:
    """Three epochs of forty users in a log and in ``store``."""
    log, ledger = new_log(), Ledger(store, ORIGIN, SIGNER_KEY)
    first = {user: mutation(user) for user in USERS}
    for batch in (USERS[:20], USERS[20:]):
        submit(log, [first[user] for user in batch])
        sign_epoch(log, ledger)
    submit(log, [next_mutation(user, first[user]) for user in USERS[:3]])
    sign_epoch(log, ledger)
    return log


@functools.cache
def published() -> tuple[MemoryLog, dict[str, dict[bytes, bytes]]]:
    store = MemoryStore(FAMILIES)
    log = filled(store)
    return log, {family: dict(store.scan(family)) for family in FAMILIES}


def stored() -> MemoryStore:
    store = MemoryStore(FAMILIES)
    store.write(
        [(family, key, value) for family, rows in published()[1].items() for key, value in rows.items()]
    )
    return store


def copy(log: MemoryLog, change: Callable[[str, int, bytes], bytes] = lambda _s, _r, data: data) -> MemoryLog:
    """The three streams again, with what ``change`` makes of an event's stream, revision and data."""
    other = MemoryLog()
    for stream in (NAMES.queue, NAMES.mutations, NAMES.heads):
        for event in log.read(stream):
            data = change(stream, event.revision, event.data)
            other.append(stream, ANY, [content_event(stream, event.type, data)])
    return other


def streams(log: MemoryLog) -> list[list[tuple[str, bytes]]]:
    return [data_of(log, stream) for stream in (NAMES.queue, NAMES.mutations, NAMES.heads)]


def refused(
    log: MemoryLog,
    store: Store,
    *,
    origin: str = ORIGIN,
    pinned: PrivateKey = SIGNER,
    keys: KeyRing | None = None,
) -> str:
    """The words with which a signer over ``store`` stops, also when there is work; nothing was published."""
    log = copy(log)
    fresh = [next_mutation(user, mutation(user)) for user in USERS[3:]]
    submit(log, fresh)
    before = streams(log)[1:]
    with pytest.raises((DivergenceError, VerificationError, ConfigError)) as caught:
        work_on(log, store, origin, pinned, keys)
    assert streams(log)[1:] == before
    return str(caught.value)


def work_on(log: MemoryLog, store: Store, origin: str, pinned: PrivateKey, keys: KeyRing | None) -> None:
    ledger = Ledger(store, origin, public(pinned))
    signer = new_signer(log, ledger, keys)
    signer.recover()
    signer.advance()
    signer._last_marker_at -= 3600
    for _ in range(3):
        signer.is_behind = True
        signer.advance()


def committed() -> Committed:
    return Committed.decode(published()[1][StateTable.FAMILY][StateTable.COMMITTED], ORIGIN, SIGNER_KEY)
