"""A committed state, head or config that was changed on disk is named, and nothing is published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from kt_es.errors import ConfigError, DivergenceError
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.rows import Committed, StateTable
from kt_es.ledger.tables import ConfigTable, HeadTable
from kt_es.merkle.log import LogState
from kt_es.merkle.map import EMPTY_ROOT
from signer.keys import KeyRing
from tests.builders import (
    ORIGIN,
    OTHER_ORIGIN,
    SIGNER_KEY,
    config,
    private_key,
    seed,
    signed_config,
)
from tests.reference.published_epochs import (
    committed,
    new_signer,
    published,
    refused,
    stored,
)

EVE = private_key("eve")


def with_commit(changed: Committed) -> MemoryStore:
    store = stored()
    store.write([StateTable(store).put(changed)])
    return store


def changed_log(state: LogState) -> LogState:
    return replace(state, hashes=(seed("another"), *state.hashes[1:]))


def shorter(state: LogState) -> LogState:
    return LogState().append([seed(str(n)) for n in range(state.size - 1)])[0]


SUCCESSOR = signed_config(config(min_interval=6, previous=config(min_interval=5).hash))


STATES: dict[str, tuple[Callable[[Committed], Committed], str]] = {
    "epoch up": (lambda c: replace(c, standing=replace(c.standing, epoch=4)), "no head of that epoch"),
    "epoch down": (lambda c: replace(c, standing=replace(c.standing, epoch=2)), "epoch 2: map_root is"),
    "epoch zero": (lambda c: replace(c, standing=replace(c.standing, epoch=0)), "epoch 0: map_root is"),
    "timestamp": (
        lambda c: replace(c, standing=replace(c.standing, timestamp=c.standing.timestamp + 1)),
        "timestamp is",
    ),
    "no config": (lambda c: replace(c, standing=replace(c.standing, config=None)), "lacks configs"),
    "other config": (lambda c: replace(c, standing=replace(c.standing, config=SUCCESSOR)), "lacks configs"),
    "map root": (lambda c: replace(c, root=replace(c.root, hash=seed("root"))), "map_root is"),
    "map size": (
        lambda c: replace(c, root=replace(c.root, size=c.root.size + 1)),
        "map_size is 41, must be 40",
    ),
    "map version": (lambda c: replace(c, root=replace(c.root, version=2)), "map page root of version 2"),
    "map version ahead": (
        lambda c: replace(c, root=replace(c.root, version=9)),
        "map_root is of epoch 9, expected 3 or earlier",
    ),
    "empty map": (lambda c: replace(c, root=EMPTY_ROOT), "map_root is"),
    "log root": (lambda c: replace(c, log=changed_log(c.log)), "log_root is"),
    "log size": (lambda c: replace(c, log=shorter(c.log)), "log_size is"),
    "heads root": (lambda c: replace(c, heads=changed_log(c.heads)), "kt.example.org/people/heads"),
    "heads size": (lambda c: replace(c, heads=shorter(c.heads)), "size of the log of heads is 2, must be 3"),
    "queue_next up": (lambda c: replace(c, queue_next=c.queue_next + 1), "queue_next is"),
    "queue_next down": (lambda c: replace(c, queue_next=c.queue_next - 1), "queue_next is"),
    "records_next up": (
        lambda c: replace(c, records_next=c.records_next + 1),
        "no records event at revision 3",
    ),
    "records_next down": (lambda c: replace(c, records_next=c.records_next - 1), "records_next was changed"),
    "records_next zero": (lambda c: replace(c, records_next=0), "records_next is 0"),
    "records_next enormous": (lambda c: replace(c, records_next=2**60), "records_next is"),
}


@pytest.mark.parametrize(("change", "words"), STATES.values(), ids=STATES.keys())
def test_a_changed_field_of_the_committed_state_is_named(
    change: Callable[[Committed], Committed], words: str
) -> None:
    assert words in refused(published()[0], with_commit(change(committed())))


def test_every_field_of_the_committed_state_is_changed_above() -> None:
    differing: set[str] = set()
    for change, _ in STATES.values():
        changed = change(committed())
        for outer, inner in (("standing", Committed.__slots__), ("standing", committed().standing.__slots__)):
            of, now = (
                (committed(), changed)
                if inner is Committed.__slots__
                else (
                    getattr(committed(), outer),
                    getattr(changed, outer),
                )
            )
            differing |= {name for name in inner if getattr(of, name) != getattr(now, name)}
    # Origin and pinned key are who reads, not what is stored.
    assert differing == {*Committed.__slots__, *committed().standing.__slots__} - {"origin", "pinned"}


def test_every_changed_byte_of_the_committed_state_is_refused() -> None:
    good = committed().encode()
    log = published()[0]
    for at in range(len(good)):
        store = stored()
        store.write(
            [(StateTable.FAMILY, StateTable.COMMITTED, good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])]
        )
        # Changed bytes of the origin name another directory.
        with pytest.raises((DivergenceError, ConfigError)):
            new_signer(log, Ledger(store, ORIGIN, SIGNER_KEY)).recover()


def test_every_changed_byte_of_the_last_head_and_of_the_config_is_refused() -> None:
    log, rows = published()
    kept = [
        (HeadTable.FAMILY, (3).to_bytes(8)),
        *(
            (ConfigTable.FAMILY, key)
            for key in rows[ConfigTable.FAMILY]
            if key.startswith(ConfigTable.PREFIX)
        ),
    ]
    for family, key in kept:
        good = rows[family][key]
        for at in range(len(good)):
            store = stored()
            store.write([(family, key, good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])])
            with pytest.raises(DivergenceError):
                new_signer(log, Ledger(store, ORIGIN, SIGNER_KEY)).recover()


def test_another_origin_or_pinned_key_is_another_directory() -> None:
    log = published()[0]
    assert f"belongs to {ORIGIN!r}" in refused(log, stored(), origin=OTHER_ORIGIN)
    assert "config" in refused(log, stored(), pinned=EVE)


def test_without_the_configs_key_it_refuses() -> None:
    words = refused(published()[0], stored(), keys=KeyRing([EVE]))
    assert SIGNER_KEY.id.hex() in words


def test_a_config_of_another_signer_on_disk_is_refused() -> None:
    store = stored()
    (key,) = (key for key, _ in store.scan(ConfigTable.FAMILY, ConfigTable.PREFIX))
    other = signed_config(config(signer_keys=[EVE]), [EVE])
    changed = replace(committed(), standing=replace(committed().standing, config=other))
    store.write(
        [
            (ConfigTable.FAMILY, key, other.encode()),
            (StateTable.FAMILY, StateTable.COMMITTED, changed.encode()),
        ]
    )
    assert "which is not in the chain of configs" in refused(published()[0], store)
