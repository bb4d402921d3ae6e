"""A snapshot is believed as far as its signed head goes; a signer goes on from it as if never stopped."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kt_es.cli.operators.init import NewDirectory, write_directory
from kt_es.client.trusted import Pinned
from kt_es.config.settings import FILE_NAME
from kt_es.errors import ConfigError, DivergenceError, KtError
from kt_es.eventstore.streams import ANY, content_event
from kt_es.formats.heads import HeadEvent, SignedMapHead
from kt_es.formats.snapshots import LENGTH_SIZE, SnapshotHeader, SnapshotRow, decode_rows, encode_rows
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.pages import PageTable
from kt_es.ledger.retention import check_epoch, prune
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.rows import Committed, StateTable
from kt_es.ledger.store import Store
from kt_es.ledger.tables import FAMILIES
from projections.fsck.examination import fsck
from projections.snapshot import load, save
from tests.builders import (
    ORIGIN,
    OTHER_ORIGIN,
    SIGNER_KEY,
    commitment,
    mutation,
    next_mutation,
    private_key,
    public,
    seed,
)
from tests.projections.test_fsck import run
from tests.reference.memory_log import MemoryLog
from tests.reference.published_epochs import USERS, copy, new_signer, published, sign_epoch, stored, streams
from tests.reference.signing import NAMES, check_logs, submit


def ledger_of(store: Store) -> Ledger:
    return Ledger(store, ORIGIN, SIGNER_KEY)


def saved(store: Store | None = None) -> bytes:
    sink = io.BytesIO()
    save(ledger_of(stored() if store is None else store), sink)
    return sink.getvalue()


def loaded(data: bytes) -> MemoryStore:
    store = MemoryStore(FAMILIES)
    load(io.BytesIO(data), store, ORIGIN, SIGNER_KEY)
    return store


def chunks(data: bytes) -> list[bytes]:
    found, at = [], 0
    while length := int.from_bytes(data[at : at + LENGTH_SIZE]):
        found.append(data[at + LENGTH_SIZE : at + LENGTH_SIZE + length])
        at += LENGTH_SIZE + length
    return found


def sealed(parts: list[bytes]) -> bytes:
    """A snapshot of these parts whose digest is right: only what is signed can be found wrong."""
    body = b"".join(len(part).to_bytes(LENGTH_SIZE) + part for part in parts) + bytes(LENGTH_SIZE)
    return body + hashlib.sha256(body).digest()


def test_what_was_saved_and_loaded_is_the_same_state() -> None:
    data = saved()
    store = loaded(data)
    assert ledger_of(store).committed == ledger_of(stored()).committed
    assert saved(store) == data
    report = fsck(store, ORIGIN, SIGNER_KEY, log=(published()[0], NAMES))
    assert report.is_good, report.differences


def test_a_pruned_directory_is_saved_as_one_that_was_not() -> None:
    pruned = stored()
    assert prune(ledger_of(pruned), 1) > 0
    assert saved(pruned) == saved()
    assert ledger_of(loaded(saved(pruned))).committed == ledger_of(pruned).committed


def test_a_directory_that_began_with_a_snapshot_keeps_no_epoch_before_it_and_is_pruned() -> None:
    log, ledger = copy(published()[0]), ledger_of(loaded(saved()))
    assert ledger.oldest == 3
    assert prune(ledger, 9) == 0
    for user in ("zoe", "yves"):
        submit(log, [mutation(user)])
        sign_epoch(log, ledger)
    assert prune(ledger, 1) > 0
    assert ledger_of(ledger.store).oldest == 5
    assert check_epoch(ledger, 5, pytest.fail) == len(USERS) + 2
    with pytest.raises(ConfigError, match="began with a snapshot: of it only epoch 5 can be checked"):
        check_epoch(ledger, 4, pytest.fail)
    report = fsck(ledger.store, ORIGIN, SIGNER_KEY, log=(log, NAMES))
    assert report.is_good, report.differences


def test_a_signer_on_a_snapshot_publishes_what_one_that_never_stopped_does() -> None:
    log, on_snapshot, never_stopped = copy(published()[0]), loaded(saved()), stored()
    submit(log, [next_mutation(user, mutation(user)) for user in USERS[3:9]] + [mutation("zoe")])
    first = ledger_of(on_snapshot)
    sign_epoch(log, first)
    submit(log, [mutation("yves")])
    sign_epoch(log, first)
    # The other one finds each of its own bytes published already, or it would stop.
    other = ledger_of(never_stopped)
    check_logs(log)
    again = copy(published()[0])
    for event in list(log.read(NAMES.queue))[again.last_revision(NAMES.queue) + 1 :]:
        again.append(NAMES.queue, ANY, [content_event(NAMES.queue, event.type, event.data)])
    process(again, other)
    assert streams(again) == streams(log)
    assert other.committed == first.committed
    for ledger in (first, other):
        report = fsck(ledger.store, ORIGIN, SIGNER_KEY, log=(log, NAMES))
        assert report.is_good, report.differences


def test_a_second_snapshot_of_a_directory_that_began_with_one() -> None:
    log, ledger = copy(published()[0]), ledger_of(loaded(saved()))
    submit(log, [mutation("zoe")])
    sign_epoch(log, ledger)
    store = loaded(saved(ledger.store))
    report = fsck(store, ORIGIN, SIGNER_KEY, log=(log, NAMES))
    assert report.is_good, report.differences
    assert report.epoch == 4


def process(log: MemoryLog, ledger: Ledger) -> None:
    signer = new_signer(log, ledger)
    signer.recover()
    for event in log.read(NAMES.queue, ledger.committed.queue_next):
        signer._process(event)


def test_every_broken_byte_and_end_is_refused_and_nothing_is_committed() -> None:
    data = saved()
    step = max(1, len(data) // 400)
    broken = [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(0, len(data), step)]
    broken += [data[:at] for at in range(0, len(data), step)] + [data + b"\x00"]
    for bad in broken:
        store = MemoryStore(FAMILIES)
        with pytest.raises(DivergenceError):
            load(io.BytesIO(bad), store, ORIGIN, SIGNER_KEY)
        assert StateTable(store).committed(ORIGIN, SIGNER_KEY) is None


def changed_rows(change: Callable[[list[SnapshotRow]], list[SnapshotRow]]) -> bytes:
    header, rows = chunks(saved())
    return sealed([header, encode_rows(change(decode_rows(rows)))])


def changed_header(change: Callable[[SnapshotHeader], SnapshotHeader]) -> bytes:
    header, *rest = chunks(saved())
    return sealed([change(SnapshotHeader.decode(header)).encode(), *rest])


def with_state(change: Callable[[Committed], Committed]) -> bytes:
    return changed_header(
        lambda header: replace(
            header, committed=change(Committed.decode(header.committed, ORIGIN, SIGNER_KEY)).encode()
        )
    )


def resigned(header: SnapshotHeader) -> SnapshotHeader:
    event = HeadEvent.decode(header.head_event)
    head = SignedMapHead.decode(event.smh_bytes).head
    forged = SignedMapHead.sign(head, private_key("eve")).encode()
    return replace(header, head_event=replace(event, smh_bytes=forged).encode())


FORGED: dict[str, tuple[Callable[[], bytes], str]] = {
    "an entry left out": (lambda: changed_rows(lambda rows: rows[1:]), "make map_root"),
    "an entry twice": (lambda: changed_rows(lambda rows: [rows[0], *rows]), "out of order"),
    "entries in another order": (lambda: changed_rows(lambda rows: rows[::-1]), "out of order"),
    "another entry": (
        lambda: changed_rows(
            lambda rows: sorted(
                [
                    *rows[1:],
                    replace(
                        rows[0],
                        index=mutation("mallory").entry.index,
                        mutation=mutation("mallory").encode(),
                    ),
                ],
                key=lambda row: row.index,
            )
        ),
        "make map_root",
    ),
    "another commitment": (
        lambda: changed_rows(
            lambda rows: [
                replace(row, mutation=mutation(USERS[9], commits_to=commitment("eve")).encode())
                if row.index == mutation(USERS[9]).entry.index
                else row
                for row in rows
            ]
        ),
        "make map_root",
    ),
    "an epoch to come": (
        lambda: changed_rows(lambda rows: [replace(rows[0], epoch=9), *rows[1:]]),
        "to come",
    ),
    "another position": (lambda: with_state(lambda c: replace(c, queue_next=1)), "queue_next"),
    "another size": (lambda: with_state(lambda c: replace(c, root=replace(c.root, size=3))), "map_size is 3"),
    "another root": (
        lambda: with_state(lambda c: replace(c, root=replace(c.root, hash=seed("root")))),
        "map_root",
    ),
    "a head by another key": (lambda: changed_header(resigned), "is not signed"),
}


@pytest.mark.parametrize(("made", "words"), FORGED.values(), ids=FORGED.keys())
def test_what_is_not_what_was_signed_is_refused(made: Callable[[], bytes], words: str) -> None:
    store = MemoryStore(FAMILIES)
    with pytest.raises(DivergenceError, match=words):
        load(io.BytesIO(made()), store, ORIGIN, SIGNER_KEY)
    assert StateTable(store).committed(ORIGIN, SIGNER_KEY) is None


def test_another_directorys_snapshot_is_refused() -> None:
    for origin, pinned in ((OTHER_ORIGIN, SIGNER_KEY), (ORIGIN, public(private_key("eve")))):
        with pytest.raises(DivergenceError):
            load(io.BytesIO(saved()), MemoryStore(FAMILIES), origin, pinned)


def test_a_directory_with_anything_in_it_is_refused() -> None:
    with pytest.raises(DivergenceError, match="not empty"):
        load(io.BytesIO(saved()), stored(), ORIGIN, SIGNER_KEY)


def test_a_damaged_directory_is_not_saved() -> None:
    store = stored()
    key = next(key for key in published()[1][PageTable.FAMILY] if key[0] == 1 and key[-9] == 2)
    store.write([(PageTable.FAMILY, key, None)])
    with pytest.raises(KtError, match="is missing"):
        saved(store)
    with pytest.raises(ConfigError, match="the data directory has no epoch yet: start its process first"):
        saved(MemoryStore(FAMILIES))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory's ``kt.toml`` and its signer's data, which are at epoch 3."""
    settings = write_directory(tmp_path, NewDirectory("people", ORIGIN, "", "email", 1.0, 60.0))
    text = (tmp_path / FILE_NAME).read_text()
    (tmp_path / FILE_NAME).write_text(text.replace(settings.key, Pinned(ORIGIN, SIGNER_KEY).vkey))
    store = RocksStore.open(tmp_path / "signer", FAMILIES)
    rows = published()[1]
    store.write([(family, key, value) for family in FAMILIES for key, value in rows[family].items()])
    store.close()
    return tmp_path


def test_the_commands_save_while_the_signer_runs_and_load_what_verifies(directory: Path) -> None:
    kt = ("-c", str(directory / FILE_NAME), "snapshot")
    file, data = str(directory / "snapshot"), str(directory / "new")
    store = RocksStore.open(directory / "signer", FAMILIES)
    try:
        assert run(*kt, "save", file)[0] == 0
    finally:
        store.close()
    assert Path(file).read_bytes() == saved()
    code, said, _ = run(*kt, "load", file, "--data", data)
    assert code == 0
    assert "epoch 3, 40 entries" in said
    code, _, problem = run(*kt, "load", file, "--data", data)
    assert code == 2
    assert "is not empty" in problem
    store = RocksStore.open(Path(data), FAMILIES)
    assert ledger_of(store).committed.epoch == 3
    store.close()


def test_a_broken_file_leaves_nothing_behind(directory: Path) -> None:
    kt = ("-c", str(directory / FILE_NAME), "snapshot")
    (directory / "snapshot").write_bytes(saved()[:-1])
    before = sorted(directory.iterdir())
    code, _, problem = run(*kt, "load", str(directory / "snapshot"), "--data", str(directory / "new"))
    assert code == 4
    assert "snapshot" in problem
    assert sorted(directory.iterdir()) == before
