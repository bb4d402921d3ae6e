"""``kt fsck`` finds whatever was changed in a data directory or in the logs, and says where it stands."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from kt_es.cli.main import cli
from kt_es.client.trusted import Pinned
from kt_es.eventstore.streams import ANY, content_event
from kt_es.formats.configs import SignedConfig
from kt_es.formats.heads import HeadEvent
from kt_es.formats.queue import decode_records, encode_records
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.openings import OpeningTable
from kt_es.ledger.pages import PageTable
from kt_es.ledger.retention import prune
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.rows import StateTable
from kt_es.ledger.store import Store
from kt_es.ledger.tables import (
    FAMILIES,
    HEADS_LOG,
    MUTATIONS_LOG,
    ConfigTable,
    EntryTable,
    HeadTable,
    LogNodeTable,
    StoredEntry,
)
from kt_es.merkle.log import NodeId
from kt_es.merkle.map import LeafRef
from kt_es.merkle.pages import KEY_HASH_SIZE, LEAF_SIZE, VERSION_SIZE, decode_page, encode_page, version_in
from projections.fsck.directory import MAX_DIFFERENCES, FsckReport
from projections.fsck.examination import fsck
from tests.builders import (
    ORIGIN,
    OTHER_ORIGIN,
    SIGNER_KEY,
    index,
    mutation,
    next_mutation,
    opening_event,
    private_key,
    seed,
)
from tests.reference.memory_log import MemoryLog
from tests.reference.published_epochs import USERS, copy, filled, published, sign_epoch, stored
from tests.reference.signing import NAMES, heads, submit


def held_rows() -> dict[tuple[str, bytes], bytes]:
    """All rows but the pages that the root does not lead to: a newer one is at their place in the map."""
    rows = {(family, key): value for family in FAMILIES for key, value in published()[1][family].items()}
    newest = {path_in(key): key for key in sorted(published()[1][PageTable.FAMILY])}
    return {
        (family, key): value
        for (family, key), value in rows.items()
        if family != PageTable.FAMILY or newest[path_in(key)] == key
    }


def path_in(key: bytes) -> bytes:
    return key[: -VERSION_SIZE - KEY_HASH_SIZE]


def examined(store: Store, log: MemoryLog | None = None) -> FsckReport:
    return fsck(store, ORIGIN, SIGNER_KEY, log=None if log is None else (log, NAMES))


def test_a_whole_directory_and_its_logs_are_as_they_must_be() -> None:
    report = examined(stored(), published()[0])
    assert report.is_good, report.differences
    assert report.epoch == 3
    assert report.counts["leaves of the map"] == len(USERS)
    assert report.counts["entries"] == len(USERS) + 3
    assert report.counts["heads"] == report.counts["heads in the stream"] == 3
    assert report.counts["records in the stream"] == heads(published()[0])[-1].log_size


@pytest.mark.parametrize(
    "family", [PageTable.FAMILY, EntryTable.FAMILY, LogNodeTable.FAMILY, HeadTable.FAMILY]
)
def test_every_value_that_is_changed_or_missing_is_found(family: str) -> None:
    rows, held = published()[1][family], held_rows()
    assert family != PageTable.FAMILY or 1 < sum(key in rows for _, key in held) < len(rows)
    for number, (key, value) in enumerate(rows.items()):
        for change in (value[:-1] + bytes([value[-1] ^ 1]), value[: len(value) // 2], None):
            store = stored()
            store.write([(family, key, change)])
            found = not examined(store, published()[0]).is_good
            # A page that a newer one replaced is not read, but the list of replaced pages names it.
            assert found == ((family, key) in held or change is None), (family, number, key.hex(), change)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_a_pruned_directory_is_as_it_must_be(keep: int) -> None:
    store, log = stored(), copy(published()[0])
    ledger = Ledger(store, ORIGIN, SIGNER_KEY)
    lists = len(list(PageTable(store).lists()))
    assert (prune(ledger, keep) > 0) == (keep < 3)
    report = examined(store, log)
    assert report.is_good, report.differences
    assert report.counts["heads"] == 3
    assert report.counts["leaves of the map"] == len(USERS)
    assert (report.counts["lists of replaced pages"] < lists) == (keep < 3)
    submit(log, [mutation("zoe")])
    sign_epoch(log, ledger)
    prune(ledger, keep)
    report = examined(store, log)
    assert report.is_good, report.differences


def test_a_list_of_replaced_pages_is_held_against_the_pages() -> None:
    epoch, row, keys = next(PageTable(stored()).lists())
    (other,) = (key for key in published()[1][PageTable.FAMILY] if key[0] == 0 and version_in(key)[-1] == 3)
    for damaged in (b"", keys[:-1], other + keys, keys[:1] + bytes(len(keys) - 1)):
        store = stored()
        store.write([("meta", row, damaged)])
        words = " ".join(examined(store).differences)
        assert f"the list of the pages that epoch {epoch} replaced is damaged" in words


def test_every_changed_byte_of_an_entry_is_found() -> None:
    """Past ones and signatures too; without the log only the number of its record can be another."""
    rows = published()[1][EntryTable.FAMILY]
    chained = [key for key in rows if key.startswith(index(USERS[0]))]
    assert len(chained) == 2
    for key in (*chained, index(USERS[20]) + (2).to_bytes(8)):
        good = rows[key]
        for at in range(len(good)):
            store = stored()
            store.write([(EntryTable.FAMILY, key, good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])])
            if at >= 8:
                assert not examined(store).is_good, at
            words = " ".join(examined(store, published()[0]).differences)
            assert key[:32].hex() in words, (at, words)


def test_entries_that_nobody_accepted_are_found() -> None:
    store = stored()
    other = next_mutation(USERS[9], mutation(USERS[9]))
    store.write([EntryTable(store).put(LeafRef(index(USERS[9]), b"", 3), StoredEntry(46, other.encode()))])
    words = " ".join(examined(store, published()[0]).differences)
    assert f"{len(USERS) + 4} entries are stored here, {len(USERS) + 3} were accepted" in words
    store = stored()
    forged = mutation("zoe", signed_by=[private_key("eve")])
    store.write([EntryTable(store).put(LeafRef(index("zoe"), b"", 3), StoredEntry(46, forged.encode()))])
    assert "is not signed as it must be" in " ".join(examined(store).differences)


def test_an_entry_and_its_leaf_that_agree_are_held_against_the_root() -> None:
    """The checksum of the page is right: only its parent tells that it is another one."""
    store, at = stored(), index(USERS[9])
    other = mutation(USERS[9], commits_to=seed("another profile"))
    ((key, slots, position),) = (
        (key, slots, position)
        for family, key in held_rows()
        if family == PageTable.FAMILY
        for slots in [decode_page(key, store.get(family, key))]
        for position, slot in enumerate(slots)
        if slot is not None and len(slot) == LEAF_SIZE and slot.startswith(at)
    )
    version = (slots[position] or b"")[-VERSION_SIZE:]
    slots[position] = at + other.entry_hash + version
    ((epoch, kept),) = ((epoch, kept) for place, epoch, kept in EntryTable(store).scan() if place == at)
    store.write(
        [
            (PageTable.FAMILY, key, encode_page(key, slots)),
            EntryTable(store).put(LeafRef(at, b"", epoch), StoredEntry(kept.sequence, other.encode())),
        ]
    )
    assert "its parent says" in " ".join(examined(store).differences)


def test_a_page_below_the_root_is_named() -> None:
    store = stored()
    key = next(key for key in published()[1][PageTable.FAMILY] if key[0] == 1 and version_in(key)[-1] == 2)
    store.write([(PageTable.FAMILY, key, None)])
    words = " ".join(examined(store).differences)
    assert f"map page {key[1:2].hex()[0]} of version 2 is missing" in words
    assert f"its head says {len(USERS)}" in words


def test_an_entry_is_named() -> None:
    store = stored()
    at = index(USERS[7])
    store.write([EntryTable(store).delete(at, 1)])
    assert examined(store).differences == [f"the entry at index {at.hex()} of epoch 1 is missing"]


def test_nodes_heads_and_configs_are_named() -> None:
    store = stored()
    store.write(LogNodeTable(store).put(MUTATIONS_LOG, [(NodeId(1, 4), seed("x"))]))
    words = " ".join(examined(store).differences)
    assert "log of mutations: node at level 1, offset 4" in words
    assert "level 2, offset 2" in words
    store = stored()
    (node,) = LogNodeTable(store).put(HEADS_LOG, [(NodeId(0, 1), b"")])
    store.write([(*node[:2], None), (HeadTable.FAMILY, (1).to_bytes(8), None)])
    words = " ".join(examined(store).differences)
    assert "log of heads: node at level 0, offset 1 is missing" in words
    assert "the head of epoch 1 is missing" in words
    store = stored()
    (key,) = (key for key, _ in store.scan(ConfigTable.FAMILY, ConfigTable.PREFIX))
    store.write([(ConfigTable.FAMILY, key, None)])
    assert "lacks configs" in examined(store).differences[0]


def test_what_an_unfinished_epoch_left_is_counted() -> None:
    store = stored()
    left = mutation("zoe")
    store.write([EntryTable(store).put(LeafRef(index("zoe"), b"", 4), StoredEntry(0, left.encode()))])
    store.write(LogNodeTable(store).put(MUTATIONS_LOG, [(NodeId(0, 47), seed("x"))]))
    report = examined(store)
    assert report.is_good
    assert report.counts["entries of an unfinished epoch"] == 1
    assert report.counts["nodes of an unfinished epoch"] == 1


def test_openings_are_counted_and_never_shown() -> None:
    store, opening = stored(), opening_event("alice")
    key = opening.entry_hash
    store.write(
        [
            (OpeningTable.FAMILY, index("alice") + key, opening.encode()),
            (OpeningTable.FAMILY, index("bob") + key, b""),
        ]
    )
    report = examined(store)
    assert report.is_good
    assert report.counts["openings"] == 2
    store.write([(OpeningTable.FAMILY, index("alice") + key, opening.encode()[:-1])])
    assert examined(store).differences == ["1 openings are damaged"]


def test_the_streams_are_held_against_it() -> None:
    log = published()[0]

    def other_record(stream: str, revision: int, data: bytes) -> bytes:
        if (stream, revision) != (NAMES.mutations, 1):
            return data
        first, records = decode_records(data)
        records[3] = records[3][:-1] + bytes([records[3][-1] ^ 1])
        return encode_records(first, records)

    def other_head(stream: str, revision: int, data: bytes) -> bytes:
        if (stream, revision) != (NAMES.heads, 0):
            return data
        return replace(HeadEvent.decode(data), heads_checkpoint="another").encode()

    words = " ".join(examined(stored(), copy(log, other_record)).differences)
    assert f"{NAMES.mutations}, revision 1: record 25 is another one" in words
    words = " ".join(examined(stored(), copy(log, other_head)).differences)
    assert f"{NAMES.heads}: the head of epoch 1 is another one" in words
    short = MemoryLog()
    for event in log.read(NAMES.heads, 0, 2):
        short.append(NAMES.heads, ANY, [content_event(NAMES.heads, event.type, event.data)])
    words = " ".join(examined(stored(), short).differences)
    assert "ends with epoch 2, 3 was committed here" in words
    assert "0 records in 0 events, must be 47 in 3" in words


def test_it_stops_after_twenty_differences() -> None:
    store = stored()
    store.write([(EntryTable.FAMILY, key, None) for key in published()[1][EntryTable.FAMILY]])
    assert len(examined(store).differences) == MAX_DIFFERENCES


def test_random_damage_is_found_and_never_breaks_it() -> None:
    random_ = random.Random(5)
    held = held_rows()
    good = 0
    rows = [(family, key) for family in FAMILIES for key in published()[1][family]]
    for _ in range(150):
        store, changed = stored(), False
        for family, key in random_.sample(rows, random_.randint(1, 4)):
            value = bytearray(published()[1][family][key])
            for _ in range(random_.randint(1, 5)):
                value[random_.randrange(len(value))] = random_.randrange(256)
            now = bytes(value[: random_.randint(0, len(value))])
            store.write([(family, key, now)])
            changed |= held.get((family, key), now) != now
        report = examined(store, published()[0])
        assert report.is_good != changed, report.differences
        good += report.is_good
    assert 0 < good < 150


def test_nothing_and_another_directory_are_reported() -> None:
    assert examined(MemoryStore(FAMILIES)).differences == ["the data directory has no committed epoch"]
    report = fsck(stored(), OTHER_ORIGIN, SIGNER_KEY)
    assert "belongs to" in report.differences[0]


VKEY = Pinned(ORIGIN, SIGNER_KEY).vkey


def run(*words: str) -> tuple[int, str, str]:
    """Exit code of the error or 0, standard output, and what the error says."""
    result = CliRunner().invoke(cli, [*words])
    error = result.exception
    code = 0 if error is None else int(getattr(error, "exit_code", getattr(error, "code", 1)))
    return code, result.stdout, str(error)


@pytest.fixture
def on_disk(tmp_path: Path) -> Path:
    store = RocksStore.open(tmp_path / "data", FAMILIES)
    filled(store)
    store.close()
    return tmp_path / "data"


def test_the_command_reports_in_json(on_disk: Path) -> None:
    code, said, _ = run("--json", "fsck", str(on_disk), "--vkey", VKEY)
    document = json.loads(said)
    assert code == 0
    assert document["epoch"] == 3
    assert document["differences"] == []
    assert document["examined"]["leaves of the map"] == len(USERS)


def test_the_command_ends_with_4_and_names_what_differs(on_disk: Path) -> None:
    store = RocksStore.open(on_disk, FAMILIES)
    committed = Ledger(store, ORIGIN, SIGNER_KEY).committed
    store.write([StateTable(store).put(replace(committed, queue_next=99))])
    store.close()
    code, said, problem = run("--json", "fsck", str(on_disk), "--vkey", VKEY)
    assert code == 4
    assert "in 1 place" in problem
    assert "queue_next is 99" in json.loads(said)["differences"][0]


def test_a_directory_in_use_is_examined_as_it_was(on_disk: Path) -> None:
    store = RocksStore.open(on_disk, FAMILIES)
    try:
        assert run("fsck", str(on_disk), "--vkey", VKEY)[0] == 0
    finally:
        store.close()


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    code, _, problem = run("fsck", str(tmp_path), "--vkey", VKEY)
    assert code == 2
    assert "no data directory" in problem
    assert list(tmp_path.iterdir()) == []


def test_configs_of_all_roles_are_kept() -> None:
    store = stored()
    ((_, data),) = store.scan(ConfigTable.FAMILY, ConfigTable.PREFIX)
    assert SignedConfig.decode(data) == Ledger(store, ORIGIN, SIGNER_KEY).committed.standing.config
