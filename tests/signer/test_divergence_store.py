"""Pages, entries and files that were changed on disk: named, or harmless."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kt_es.errors import KtError
from kt_es.eventstore.streams import ANY, content_event
from kt_es.formats.queue import EPOCH_MARKER
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.pages import PageTable
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.store import Store
from kt_es.ledger.tables import FAMILIES, EntryTable
from kt_es.merkle.map import Root
from kt_es.merkle.pages import decode_page, encode_page, version_in
from tests.builders import (
    ORIGIN,
    SIGNER_KEY,
    index,
    marker,
    mutation,
    next_mutation,
)
from tests.reference.forgeries import forged_page
from tests.reference.memory_log import MemoryLog
from tests.reference.published_epochs import (
    USERS,
    copy,
    filled,
    new_signer,
    published,
    refused,
    sign_epoch,
    stored,
    streams,
)
from tests.reference.signing import NAMES, heads, submit


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
            forged = forged_page(key, published()[1][PageTable.FAMILY][key])
            store.write([(PageTable.FAMILY, key, forged)])
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
