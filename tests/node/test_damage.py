"""Files of the node changed behind its back: refused or reported, never served as if nothing were."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from random import Random
from uuid import UUID

import pytest

from kt_es.errors import ConfigError, KtError
from kt_es.eventstore.driver import EventStoreDBClient, EventStoreDBClientException
from kt_es.node.groups.registry import Groups
from kt_es.node.groups.settings import GroupSettings, checkpoint_key
from kt_es.node.ops.checking import check
from kt_es.node.server import NodeConfig
from kt_es.node.store.log import NodeLog
from kt_es.node.store.reading import all_forwards, forwards
from kt_es.node.store.records import Proposed
from kt_es.node.store.rocks import RocksStorage
from kt_es.node.store.storage import (
    POSITION_KEY,
    STREAMS_KEY,
    DamageError,
    StorageError,
    event_key,
    head_key,
    id_key,
    range_key,
    u64,
)
from kt_es.node.store.streams import Expected
from tests.contracts.nodes import ServedNode

STREAMS, EVENTS = 8, 40
Content = tuple[list[bytes], list[list[bytes]], int]


def proposed(number: int) -> Proposed:
    random = Random(number)
    event_id = str(UUID(bytes=random.randbytes(16)))
    return Proposed(event_id, "T", "application/octet-stream", b"", random.randbytes(400))


async def fill(path: Path, tables: bool, copy: Path) -> None:
    """Streams, groups and metadata in ``copy`` as a kill leaves them: in tables, or all in the log."""
    storage = RocksStorage(path)
    log = NodeLog(storage, lambda: 1000.0, lambda _error: None)
    groups = Groups(log)
    for stream in range(STREAMS):
        for number in range(0, EVENTS, 4):
            events = [proposed(stream * 1000 + number + at) for at in range(4)]
            await log.append(f"s{stream}", Expected.ANY, events)
    await groups.create("s1", "g", GroupSettings())
    if tables:
        storage.checkpoint(path / "copy")
        shutil.rmtree(path / "copy")
    await log.append("s0", Expected.ANY, [proposed(9999)])
    await groups.create("s2", "last", GroupSettings())
    shutil.copytree(path, copy)
    await log.close()


@pytest.fixture(scope="module", params=["tables", "log"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Never to be opened itself: that would rewrite it."""
    base = tmp_path_factory.mktemp("made")
    asyncio.run(fill(base / "open", request.param == "tables", base / "made"))
    return base / "made"


async def served(path: Path) -> Content:
    """Everything that readers get: $all, the streams, how many groups. A failing read raises."""
    storage = RocksStorage(path)
    try:
        log = NodeLog(storage, lambda: 1000.0, lambda _error: None)
    except KtError:
        storage.close()
        raise
    try:
        groups = len(Groups(log).all())
        everything: list[bytes] = []
        at, more = 0, True
        while more:
            chunk = all_forwards(log, at)
            everything += chunk.events
            at, more = chunk.following, chunk.more
        streams = [forwards(log, f"s{number}", 0).events for number in range(STREAMS)]
        return everything, streams, groups
    finally:
        await log.close()


def content(path: Path) -> Content | None:
    """``served``, or ``None`` if it was refused in words."""
    try:
        return asyncio.run(served(path))
    except KtError:
        return None


def content_of_copy(made: Path, tmp_path: Path) -> Content:
    shutil.copytree(made, tmp_path / "whole")
    whole = content(tmp_path / "whole")
    assert whole is not None
    assert len(whole[0]) == STREAMS * EVENTS + 1
    assert list(map(len, whole[1])) == [EVENTS + 1] + [EVENTS] * (STREAMS - 1)
    return whole


def is_sound(path: Path) -> bool:
    try:
        return check(path).sound
    except KtError:
        return False


@pytest.mark.parametrize("seed", range(3))
def test_a_changed_byte_is_refused_or_harmless(made: Path, tmp_path: Path, seed: int) -> None:
    whole = content_of_copy(made, tmp_path)
    random, refused = Random(seed), 0
    names = [path.name for path in (made / "log").iterdir() if path.suffix in {".sst", ".log"}]
    names += [path.name for path in (made / "log").glob("MANIFEST-*")]
    for number in range(24):
        copy = tmp_path / str(number)
        shutil.copytree(made, copy)
        file = copy / "log" / random.choice(names)
        data = bytearray(file.read_bytes())
        if not data:
            continue
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        file.write_bytes(data)
        checked = tmp_path / f"{number}-checked"
        shutil.copytree(copy, checked)
        got = content(copy)
        assert got in (None, whole), f"{file.name} was changed, and something else was served"
        if got is None:
            refused += 1
            assert not is_sound(checked), f"{file.name}: a check finds nothing, but the data are refused"
        shutil.rmtree(copy)
        shutil.rmtree(checked)
    assert refused


def test_an_end_that_was_cut_off_is_noticed(made: Path, tmp_path: Path) -> None:
    """What a torn write looks like to the database, but in front of what was acknowledged."""
    for cut in (1, 30, 200):
        copy = tmp_path / str(cut)
        shutil.copytree(made, copy)
        file = max((copy / "log").glob("*.log"), key=lambda path: path.stat().st_size)
        with file.open("r+b") as opened:
            opened.truncate(file.stat().st_size - cut)
        with pytest.raises(ConfigError, match="has lost what was acknowledged"):
            RocksStorage(copy)


def test_a_damaged_or_missing_mark_of_the_end_is_no_obstacle(made: Path, tmp_path: Path) -> None:
    whole = content_of_copy(made, tmp_path)
    for number, mark in enumerate((b"", b"x" * 12, b"\xff" * 12, None)):
        copy = tmp_path / str(number)
        shutil.copytree(made, copy)
        (copy / "acknowledged").unlink()
        if mark is not None:
            (copy / "acknowledged").write_bytes(mark)
        assert content(copy) == whole


def test_a_node_stops_when_it_meets_a_damaged_block(made: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    tables = sorted((copy / "log").glob("*.sst"), key=lambda path: path.stat().st_size)
    if not tables:
        pytest.skip("all data are in the write-ahead log")
    data = bytearray(tables[-1].read_bytes())
    data[len(data) // 3] ^= 0xFF
    tables[-1].write_bytes(data)
    node = ServedNode(NodeConfig(data=copy, port=0))
    node.start()
    answers: list[str] = []
    with EventStoreDBClient(f"esdb://{node.address}?Tls=false") as client:
        for number in range(STREAMS):
            try:
                assert len(client.get_stream(f"s{number}", timeout=5)) >= EVENTS
            except EventStoreDBClientException as error:
                answers.append(str(error))
    assert answers
    with pytest.raises(KtError, match=r"the node stopped: reading .* checksum mismatch"):
        node.stop()


# --- what a check says ---------------------------------------------------------------------------


def number_of(path: Path, stream: str) -> int:
    storage = RocksStorage(path)
    value = storage.get(head_key(stream))
    storage.close()
    assert value is not None
    return int.from_bytes(value[:8])


def change(path: Path, puts: list[tuple[bytes, bytes]], deletes: list[bytes]) -> None:
    storage = RocksStorage(path)
    storage.write(puts, deletes)
    storage.sync()
    storage.close()


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def test_sound_data_are_reported_sound(copy: Path) -> None:
    report = check(copy)
    assert report.sound
    assert (report.position, report.streams, report.groups) == (STREAMS * EVENTS + 1, STREAMS, 2)
    assert report.events == report.position


def test_every_kind_of_missing_record_is_named(copy: Path) -> None:
    number = number_of(copy, "s3")
    first = proposed(3000)
    missing = {
        event_key(number, 7): "revisions from 7 on are missing",
        event_key(number, EVENTS - 1): "its last event, revision 39, is missing",
        id_key(number, first.id): "cannot be found by its id",
        range_key(number + 3): "$all has",
    }
    for at, (key, sentence) in enumerate(missing.items()):
        damaged = copy.with_name(f"damaged-{at}")
        shutil.copytree(copy, damaged)
        change(damaged, [], [key])
        report = check(damaged)
        assert any(sentence in problem for problem in report.problems), report.problems


def test_records_that_contradict_each_other_are_named(copy: Path) -> None:
    storage = RocksStorage(copy)
    number = int.from_bytes((storage.get(head_key("s3")) or b"")[:8])
    third = storage.get(event_key(number, 3)) or b""
    head = storage.get(head_key("s5")) or b""
    storage.close()
    wrong = {
        "header and its content": (event_key(number, 4), third),
        "cannot be decoded": (event_key(number, 4), third[:-9]),
        "behind the end": (head_key("s3"), head[:8] + (5).to_bytes(8) + head[16:]),
        "cannot be read": (b"G\x00\x02s1g", b"{"),
        "a record cannot be": (head_key("s4"), b"short" * 30),
        f"there are {STREAMS} streams, but 99 were counted": (STREAMS_KEY, u64(99)),
        "has another event at revision 9": (id_key(number, proposed(3000).id), u64(9)),
        "the checkpoint of s1::g cannot be read": (checkpoint_key("s1", "g"), b"short"),
    }
    for at, (sentence, put) in enumerate(wrong.items()):
        damaged = copy.with_name(f"damaged-{at}")
        shutil.copytree(copy, damaged)
        change(damaged, [put], [])
        report = check(damaged)
        assert not report.sound
        assert any(sentence in problem for problem in report.problems), (sentence, report.problems)


def test_an_end_that_was_changed_is_refused_at_the_start(copy: Path) -> None:
    number = number_of(copy, "s0")
    cases: list[tuple[list[tuple[bytes, bytes]], list[bytes]]] = [
        ([(POSITION_KEY, (17).to_bytes(8))], []),
        ([], [event_key(number, EVENTS)]),
        ([], [head_key("s0")]),
    ]
    for at, (puts, deletes) in enumerate(cases):
        damaged = copy.with_name(f"damaged-{at}")
        shutil.copytree(copy, damaged)
        change(damaged, puts, deletes)
        node = ServedNode(NodeConfig(data=damaged, port=0))
        with pytest.raises((DamageError, StorageError)):
            node.start()
        # It has let go of the data.
        RocksStorage(damaged).close()


def test_a_log_without_its_database_is_refused_and_not_replaced_by_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    with pytest.raises(ConfigError, match="has a file log/CURRENT: name the one that"):
        check(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["log"]
