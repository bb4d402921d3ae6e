"""Where each table keeps its rows: an existing data directory has exactly these families and keys."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import pytest

from kt_es.epochs import Standing
from kt_es.errors import DivergenceError
from kt_es.eventstore.streams import Event
from kt_es.formats.entries import OPENING
from kt_es.formats.erasures import Erasure, ErasureReason
from kt_es.formats.heads import HeadEvent
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.openings import Missing
from kt_es.ledger.rows import Beginning, Committed
from kt_es.ledger.store import Change
from kt_es.ledger.tables import FAMILIES, HEADS_LOG, MUTATIONS_LOG, StoredEntry, Tables
from kt_es.merkle.log import NodeId
from kt_es.merkle.map import LeafRef
from tests.builders import ORIGIN, SIGNER, SIGNER_KEY, index, mutation, opening_event, seed, signed_config
from tests.reference.published_epochs import published

AT, OTHER = index("alice"), index("bob")
MUTATION = mutation("alice")
EVENT = HeadEvent(b"smh", "heads", "mutations")
CONFIG = signed_config().encode()
ERASURE = Erasure.sign(AT, MUTATION.entry_hash, ErasureReason.LAW, ORIGIN, SIGNER)
FOUR = bytes(7) + b"\x04"


def tables(*changes: Change) -> Tables:
    store = MemoryStore(FAMILIES)
    store.write(changes)
    return Tables(store)


def test_each_table_has_its_family_and_its_keys() -> None:
    made = tables()
    entry = StoredEntry(0x0102, MUTATION.encode())
    state = Committed.decode(published()[1]["meta"][b"committed"], ORIGIN, SIGNER_KEY)
    assert made.pages.put(4, [(b"\x01\x02", b"page")]) == [("pages", b"\x01\x02", b"page")]
    assert made.entries.put(LeafRef(AT, b"", 4), entry) == (
        "entries",
        AT + FOUR,
        bytes(6) + b"\x01\x02" + MUTATION.encode(),
    )
    assert made.entries.delete(AT, 4) == ("entries", AT + FOUR, None)
    assert made.nodes.put(HEADS_LOG, [(NodeId(3, 258), b"n")]) == [
        ("nodes", b"h\x03" + bytes(6) + b"\x01\x02", b"n")
    ]
    assert made.nodes.put(MUTATIONS_LOG, [(NodeId(0, 4), b"n")]) == [("nodes", b"m\x00" + FOUR, b"n")]
    assert made.heads.put(4, EVENT) == [("heads", FOUR, EVENT.encode())]
    assert made.states.put(state) == ("meta", b"committed", state.encode())
    assert made.states.put_beginning(Beginning(4, 9)) == ("meta", b"beginning", b"\x82\x04\x09")
    assert made.configs.put(4, 1, b"config") == ("meta", b"config " + FOUR + bytes(7) + b"\x01", b"config")
    assert made.erasures.put(ERASURE, 4, 1, b"record") == (
        "meta",
        b"erasure " + AT + MUTATION.entry_hash + FOUR + bytes(7) + b"\x01",
        b"record",
    )
    slice_ = [
        made.entries.put(LeafRef(AT, b"", 4), entry),
        *made.heads.put(4, EVENT),
        made.entries.put(LeafRef(OTHER, b"", 4), entry),
    ]
    assert made.ahead.put(4, slice_) == [("meta", b"ahead " + FOUR, AT + OTHER)]
    assert made.ahead.delete(4) == [("meta", b"ahead " + FOUR, None)]


def test_openings_stand_in_a_family_of_their_own() -> None:
    store, opening = MemoryStore(FAMILIES), opening_event("alice")
    openings = Tables(store).openings
    assert openings.position is None
    assert openings.get(AT, opening.entry_hash) is Missing.UNKNOWN
    openings.add(AT, Event("s", 0, OPENING, opening.encode(), uuid.uuid4(), 258))
    assert dict(store.scan("openings")) == {AT + opening.entry_hash: opening.encode()}
    assert dict(store.scan("meta")) == {b"openings position": bytes(6) + b"\x01\x02"}
    assert openings.get(AT, opening.entry_hash) == opening
    openings.erase(AT, opening.entry_hash)
    assert dict(store.scan("openings")) == {AT + opening.entry_hash: b""}
    assert openings.get(AT, opening.entry_hash) is Missing.ERASED
    assert Tables(store).openings.position == 258


def test_entries_are_read_by_index_and_epoch() -> None:
    first, second = StoredEntry(1, MUTATION.encode()), StoredEntry(2, b"later")
    make = tables().entries
    entries = tables(
        make.put(LeafRef(OTHER, b"", 2), first),
        make.put(LeafRef(AT, b"", 1), first),
        make.put(LeafRef(AT, b"", 9), second),
    ).entries
    assert entries.get_many([LeafRef(AT, b"", 9), LeafRef(AT, b"", 2), LeafRef(OTHER, b"", 2)]) == [
        second,
        None,
        first,
    ]
    assert list(entries.scan(AT)) == [(AT, 1, first), (AT, 9, second)]
    assert list(entries.scan(AT, 2)) == [(AT, 9, second)]
    assert [key for key, _, _ in entries.scan()] == sorted([OTHER, AT, AT])
    assert first.mutation() == MUTATION


def test_nodes_are_read_by_log_and_level() -> None:
    nodes = [(NodeId(0, 0), seed("a")), (NodeId(0, 1), seed("b")), (NodeId(1, 0), seed("c"))]
    made = tables(*tables().nodes.put(HEADS_LOG, nodes)).nodes
    assert made.get_many(HEADS_LOG, [NodeId(1, 0), NodeId(0, 7)]) == [seed("c"), None]
    assert made.get_many(MUTATIONS_LOG, [NodeId(1, 0)]) == [None]
    assert made.leaves(HEADS_LOG, 0, 3) == [seed("a"), seed("b"), None]
    assert list(made.scan(HEADS_LOG, 0, 2)) == [(0, seed("a")), (1, seed("b"))]


def test_configs_and_erasures_of_later_epochs_are_passed_over_and_undone() -> None:
    entry = StoredEntry(1, MUTATION.encode())
    make = tables()
    changes = [make.configs.put(1, 0, CONFIG), make.configs.put(3, 5, b"ahead")]
    changes += [make.erasures.put(ERASURE, epoch, 7, b"record") for epoch in (2, 3)]
    changes += [make.entries.put(LeafRef(AT, b"", 2), entry), make.entries.put(LeafRef(AT, b"", 3), entry)]
    made = tables(*changes, *make.ahead.put(0, changes[-1:]))
    assert made.configs.up_to(2) == [CONFIG]
    assert [found.epoch for found in made.erasures.up_to(2, AT, MUTATION.entry_hash)] == [2]
    assert made.erasures.entries(2) == made.erasures.entries(3, AT, after=2) == {AT: {MUTATION.entry_hash}}
    assert made.erasures.entries(2, OTHER) == made.erasures.entries(2, after=2) == {}
    made.ahead.undo(2)
    assert made.configs.up_to(9) == [CONFIG]
    assert [found.epoch for found in made.erasures.up_to(9)] == [2]
    assert [epoch for _, epoch, _ in made.entries.scan()] == [2]


def test_a_config_is_decoded_once() -> None:
    made = tables(Tables(MemoryStore(FAMILIES)).configs.put(1, 0, CONFIG))
    committed = Committed(Standing(ORIGIN, SIGNER_KEY, epoch=1))
    ((first,), (again,)) = made.configs.chain(committed), made.configs.chain(committed)
    assert again is first
    assert first.encode() == CONFIG


def test_a_missing_or_damaged_row_is_named() -> None:
    made = tables(("heads", FOUR, b"x"), ("meta", b"committed", b"x"), ("meta", b"beginning", b"x"))
    for read, words in (
        (lambda: made.heads.event(3), "no head of that epoch"),
        (lambda: made.heads.event(4), "head of epoch 4 .* is damaged"),
        (lambda: made.states.committed(ORIGIN, SIGNER_KEY), "the data directory is damaged"),
        (made.states.beginning, "the data directory is damaged"),
    ):
        with pytest.raises(DivergenceError, match=words):
            read()


def test_no_other_module_builds_a_key_or_names_a_family() -> None:
    """Who needs a row asks its table; stores know families by what they are given."""
    root = Path(__file__).parents[2]
    names = ("tables", "decisions", "openings", "pages", "rows", "shared_pages", "shared_tables")
    have_tables = {root / f"kt_es/ledger/{name}.py" for name in (*names, "cassandra_schema")}
    found = [
        f"{path.relative_to(root)}: {match.group()}"
        for package in ("kt_es/ledger", "kt_es/server", "kt_es/cli", "projections", "signer")
        for path in sorted((root / package).rglob("*.py"))
        if path not in have_tables and "kt_es.ledger" in path.read_text()
        for match in re.finditer(r"\.FAMILY\b|\.PREFIX\b|store\.(get|get_many|scan)\(", path.read_text())
    ]
    assert found == []
