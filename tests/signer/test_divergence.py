"""Divergence is fatal: whatever was changed on disk or in the logs, it is named and nothing published."""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import ConfigError, DivergenceError, KtError, VerificationError
from kt_es.eventstore.streams import ANY, content_event
from kt_es.formats.heads import Checkpoint, HeadEvent, MapHead, SignedMapHead, heads_origin, sign_checkpoint
from kt_es.formats.queue import EPOCH_MARKER, Record, Verdict, decode_records, encode_records
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.pages import PageTable
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.rows import Committed, StateTable
from kt_es.ledger.store import Store
from kt_es.ledger.tables import FAMILIES, MUTATIONS_LOG, ConfigTable, EntryTable, HeadTable, Tables
from kt_es.merkle.log import LogState, NodeId
from kt_es.merkle.map import EMPTY_ROOT, Root
from kt_es.merkle.pages import decode_page, encode_page, version_in
from signer.keys import KeyRing
from signer.loop import Signer
from tests.builders import (
    ORIGIN,
    OTHER_ORIGIN,
    SIGNER,
    SIGNER_KEY,
    config,
    index,
    marker,
    mutation,
    next_mutation,
    private_key,
    public,
    seed,
    signed_config,
)
from tests.reference.memory_log import MemoryLog
from tests.reference.signing import LIMITS, NAMES, data_of, effects, heads, new_log, submit

USERS = [f"user{number}" for number in range(40)]
EVE = private_key("eve")


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
        with pytest.raises(DivergenceError):
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


def page_keys() -> list[bytes]:
    """The pages of the current map that the next epoch has to read."""
    return list(published()[1][PageTable.FAMILY])


def root_key(epoch: int) -> bytes:
    (key,) = (key for key in page_keys() if key[0] == 0 and version_in(key) == epoch.to_bytes(5))
    return key


@pytest.mark.parametrize("what", ["missing", "changed", "in another's place"])
def test_a_damaged_root_page_is_named(what: str) -> None:
    store, key = stored(), root_key(3)
    value = published()[1][PageTable.FAMILY][key]
    elsewhere = published()[1][PageTable.FAMILY][root_key(2)]
    changes = {"missing": None, "changed": value[:40] + b"\x00" + value[41:], "in another's place": elsewhere}
    store.write([(PageTable.FAMILY, key, changes[what])])
    assert "map page root of version 3" in refused(published()[0], store)


def test_a_root_page_with_another_content_and_a_good_checksum_is_named() -> None:
    store, key = stored(), root_key(3)
    slots = decode_page(key, store.get(PageTable.FAMILY, key))
    at = next(position for position, slot in enumerate(slots) if slot is not None)
    slots[at] = bytes([slots[at][0] ^ 1]) + slots[at][1:]  # type: ignore[index]
    store.write([(PageTable.FAMILY, key, encode_page(key, slots))])
    assert "its parent says" in refused(published()[0], store)


def test_damaged_pages_below_stop_it_before_the_epoch_is_published() -> None:
    store = stored()
    below = [key for key in page_keys() if key[0] > 0]
    assert below
    store.write(
        [(PageTable.FAMILY, key, published()[1][PageTable.FAMILY][key][:-1] + b"\x00") for key in below]
    )
    assert "is damaged" in refused(published()[0], store)


def test_a_forged_page_below_with_a_good_checksum_is_never_signed_over() -> None:
    store = stored()
    for key in page_keys():
        if key[0] > 0:
            slots = decode_page(key, store.get(PageTable.FAMILY, key))
            forged = [None if slot is None else bytes([slot[0], slot[1] ^ 1]) + slot[2:] for slot in slots]
            store.write([(PageTable.FAMILY, key, encode_page(key, forged))])
    assert "its parent says" in refused(published()[0], store)


@pytest.mark.parametrize("what", ["missing", "damaged", "another's"])
def test_a_damaged_entry_stops_it_when_its_index_changes(what: str) -> None:
    store = stored()
    changed = USERS[10]
    key = index(changed) + (1).to_bytes(8)
    other = published()[1][EntryTable.FAMILY][index(USERS[11]) + (1).to_bytes(8)]
    values = {"missing": None, "damaged": b"\xff" * 40, "another's": other}
    store.write([(EntryTable.FAMILY, key, values[what])])
    assert f"the entry at index {index(changed).hex()}" in refused(published()[0], store)


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


def another_head(data: bytes, fields: dict[str, object], key: PrivateKey = SIGNER) -> bytes:
    event = HeadEvent.decode(data)
    head = replace(SignedMapHead.decode(event.smh_bytes).head, **fields)  # type: ignore[arg-type]
    return replace(event, smh_bytes=SignedMapHead.sign(head, key).encode()).encode()


@pytest.mark.parametrize("field", [name for name in MapHead.__slots__ if name != "origin"])
@pytest.mark.parametrize("revision", [0, 1, 2])
def test_another_head_in_the_log_is_named(field: str, revision: int) -> None:
    log = published()[0]
    value = getattr(heads(log)[revision], field)
    other = value + 1 if isinstance(value, int) else seed("another")
    changed = copy(
        log,
        lambda s, r, data: another_head(data, {field: other}) if (s, r) == (NAMES.heads, revision) else data,
    )
    if revision == 2:
        signed = "" if field == "config_hash" else "signed "
        assert f"another {signed}head of epoch 3" in refused(changed, stored())
    words = refused(changed, MemoryStore(FAMILIES))
    assert f"head of epoch {revision + 1}" in words


def test_a_head_or_checkpoint_by_another_key_is_named() -> None:
    log = published()[0]
    by_eve = copy(
        log, lambda s, r, data: another_head(data, {}, EVE) if s == NAMES.heads and r == 1 else data
    )
    assert "head of epoch 2: map head: is not signed" in refused(by_eve, MemoryStore(FAMILIES))

    def other_checkpoint(stream: str, revision: int, data: bytes) -> bytes:
        if (stream, revision) != (NAMES.heads, 2):
            return data
        made = Checkpoint(heads_origin(ORIGIN), 3, seed("root"))
        return replace(
            HeadEvent.decode(data), heads_checkpoint=sign_checkpoint(made, made.origin, SIGNER)
        ).encode()

    changed = copy(log, other_checkpoint)
    assert "another signed head of epoch 3" in refused(changed, stored())
    assert "checkpoint of kt.example.org/people/heads" in refused(changed, MemoryStore(FAMILIES))


@pytest.mark.parametrize("revision", [0, 1, 2])
@pytest.mark.parametrize("position", [0, -1])
def test_a_changed_record_in_the_log_is_named(revision: int, position: int) -> None:
    log = published()[0]

    def change(stream: str, number: int, data: bytes) -> bytes:
        if (stream, number) != (NAMES.mutations, revision):
            return data
        first, records = decode_records(data)
        records[position] = records[position][:-1] + bytes([records[position][-1] ^ 1])
        return encode_records(first, records)

    first, records = decode_records(data_of(log, NAMES.mutations)[revision][1])
    number = first + (position % len(records))
    changed = copy(log, change)
    if revision == 2:
        assert f"record {number} is not the one committed here" in refused(changed, stored())
    words = refused(changed, MemoryStore(FAMILIES))
    # A config that does not verify is told by what it is.
    assert f"record {number}" in words or "the config that begins the queue" in words


def test_a_lost_hash_of_the_last_records_is_found_at_the_start() -> None:
    store, log = stored(), published()[0]
    number = decode_records(data_of(log, NAMES.mutations)[2][1])[0]
    ((family, key, _),) = Tables(store).nodes.put(MUTATIONS_LOG, [(NodeId(0, number), b"")])
    store.write([(family, key, None)])
    assert f"record {number} is not the one committed here" in refused(log, store)


@pytest.mark.parametrize("stream", [NAMES.mutations, NAMES.heads])
@pytest.mark.parametrize("last", [0, 1])
def test_a_log_that_lost_its_end_is_refused(stream: str, last: int) -> None:
    log, short = published()[0], MemoryLog()
    for name in (NAMES.queue, NAMES.mutations, NAMES.heads):
        for event in log.read(name):
            if name != stream or event.revision <= last:
                short.append(name, ANY, [content_event(name, event.type, event.data)])
    assert re.search("which was (committed|verified) here", refused(short, stored()))


@pytest.mark.parametrize("pattern", ["*.sst", "*.log", "MANIFEST-*", "CURRENT"])
def test_changed_bytes_in_the_files_of_the_database_are_refused_or_harmless(
    tmp_path: Path, pattern: str
) -> None:
    """Wherever a bit flips: the signer refuses, or goes on to publish the very bytes it would have."""
    good = tmp_path / "good"
    log = rocks_directory(good, tables=pattern == "*.sst")
    expected = published_after(copy(log), MemoryStore(FAMILIES))
    files = {path.name: path.read_bytes() for path in good.iterdir() if path.is_file()}
    outcomes = []
    for name in (path.name for path in sorted(good.glob(pattern)) if path.stat().st_size):
        size = len(files[name])
        for at in sorted({0, 5, 9, size // 4, size // 2, 3 * size // 4, size - 20, size - 2}):
            if not 0 <= at < size:
                continue
            bad = tmp_path / f"bad-{name}-{at}"
            bad.mkdir()
            for other, data in files.items():
                (bad / other).write_bytes(
                    data if other != name else data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1 :]
                )
            outcomes.append(outcome(copy(log), bad, expected))
    assert "refused" in outcomes


def rocks_directory(directory: Path, *, tables: bool) -> MemoryLog:
    """The epochs on disk: in tables, or still in the write-ahead log as after a kill."""
    running = directory.with_name("running")
    store = RocksStore.open(running, FAMILIES)
    log = filled(store)
    if tables:
        store.compact()
    shutil.copytree(running, directory)
    store.close()
    return log


def published_after(log: MemoryLog, store: Store) -> list[list[tuple[str, bytes]]]:
    """What is published once a signer over ``store`` has taken what is new and ended the epoch."""
    before = streams(log)[1:]
    submit(log, [next_mutation(user, mutation(user)) for user in USERS[3:]])
    end = marker(heads(log)[-1].timestamp + 1).encode()
    log.append(NAMES.queue, ANY, [content_event(NAMES.queue, EPOCH_MARKER, end)])
    ledger = Ledger(store, ORIGIN, SIGNER_KEY)
    signer = new_signer(log, ledger)
    signer.recover()
    signer.advance()
    after = streams(log)[1:]
    assert all(len(now) > len(then) for now, then in zip(after, before, strict=True))
    return after


def outcome(log: MemoryLog, directory: Path, expected: list[list[tuple[str, bytes]]]) -> str:
    before = streams(log)[1:]
    try:
        store = RocksStore.open(directory, FAMILIES)
    except KtError:
        return "refused"
    after = None
    try:
        after = published_after(log, store)
    except KtError:
        pass
    finally:
        store.close()
    assert (before if after is None else expected) == streams(log)[1:]
    return "refused" if after is None else "harmless"


def test_what_is_not_damaged_is_not_refused() -> None:
    log = copy(published()[0])
    ledger = Ledger(stored(), ORIGIN, SIGNER_KEY)
    submit(log, [mutation("zoe")])
    sign_epoch(log, ledger)
    assert heads(log)[-1].map_size == len(USERS) + 1
    assert isinstance(ledger.committed.root, Root)


def test_a_rebuild_believes_only_what_its_own_head_seals() -> None:
    log = published()[0]

    def forged(stream: str, revision: int, data: bytes) -> bytes:
        if (stream, revision) != (NAMES.mutations, 0):
            return data
        first, records = decode_records(data)
        record = Record.decode(records[1])
        records[1] = replace(record, verdict=Verdict.UNAUTHORIZED).encode()
        return encode_records(first, records)

    assert "record 1: says unauthorized, must be accepted" in refused(
        copy(log, forged), MemoryStore(FAMILIES)
    )


def test_a_rebuild_from_the_logs_comes_to_the_same_state() -> None:
    log = copy(published()[0])
    ledger = Ledger(MemoryStore(FAMILIES), ORIGIN, SIGNER_KEY)
    new_signer(log, ledger).recover()
    assert ledger.committed == committed()
    assert (
        ledger.store.get(StateTable.FAMILY, StateTable.COMMITTED)
        == published()[1][StateTable.FAMILY][StateTable.COMMITTED]
    )
