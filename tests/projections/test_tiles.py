"""Files of both logs: what an independent reader finds in them, and every way to go on with them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from kt_es.errors import ConfigError, DivergenceError, KtError, LockedError, RollbackError
from kt_es.eventstore.streams import ANY, content_event
from kt_es.formats.heads import HeadEvent
from kt_es.formats.queue import decode_records
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.tables import FAMILIES
from projections.tiles import export as exporting
from projections.tiles.export import Exported, TileExport
from projections.tiles.folder import TileFolder
from tests.builders import ORIGIN, OTHER_ORIGIN, SIGNER_KEY, mutation
from tests.reference.memory_log import MemoryLog
from tests.reference.published_epochs import copy, published, sign_epoch
from tests.reference.signing import NAMES, new_log, submit
from tests.reference.tile_reader import read_log


def run(folder: Path, log: MemoryLog, origin: str = ORIGIN) -> list[Exported]:
    with closing(TileExport(folder, origin, NAMES)) as export:
        return list(export.run(log))


def check(folder: Path, log: MemoryLog) -> None:
    """Everything that the event log has stands in the files, under its last checkpoints."""
    events = [HeadEvent.decode(event.data) for event in log.read(NAMES.heads)]
    records = [record for event in log.read(NAMES.mutations) for record in decode_records(event.data)[1]]
    heads = read_log(lambda name: (folder / "heads" / name).read_bytes())
    assert heads == (events[-1].heads_checkpoint, [event.smh_bytes for event in events])
    mutations = read_log(lambda name: (folder / "mutations" / name).read_bytes())
    assert mutations == (events[-1].mutations_checkpoint, records)


class Directory:
    """A directory whose signer works in this process."""

    def __init__(self) -> None:
        self.ledger = Ledger(MemoryStore(FAMILIES), ORIGIN, SIGNER_KEY)
        self.log = new_log()

    def grow(self, *users: str) -> None:
        """Sign an epoch with the first entries of ``users``."""
        submit(self.log, [mutation(user) for user in users])
        sign_epoch(self.log, self.ledger)


def files(folder: Path) -> dict[str, bytes]:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != exporting.LOCK_FILE)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_a_reader_finds_both_logs_in_the_files(tmp_path: Path) -> None:
    log, _ = published()
    assert run(tmp_path, log)[-1] == Exported(3, _size(log))
    check(tmp_path, log)


def _size(log: MemoryLog) -> int:
    return sum(len(decode_records(event.data)[1]) for event in log.read(NAMES.mutations))


def test_each_run_adds_what_is_new_and_changes_nothing_else(tmp_path: Path) -> None:
    directory = Directory()
    for number in range(4):
        directory.grow(*(f"user{number}-{at}" for at in range(100)))
        before = files(tmp_path)
        run(tmp_path, directory.log)
        check(tmp_path, directory.log)
        after = files(tmp_path)
        assert {name for name in before if before[name] != after.get(name, before[name])} == (
            {"heads/checkpoint", "mutations/checkpoint"} if number else set()
        )
        # Partial tiles go when the whole tile is there, and not before.
        gone = set(before) - set(after)
        assert all(".p/" in name and name.partition(".p/")[0] in after for name in gone)
        assert run(tmp_path, directory.log) == []
        assert files(tmp_path) == after
    assert "mutations/tile/0/000" in after


def test_steps_are_bounded_and_each_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "STEP", 1)
    log, _ = published()
    with closing(TileExport(tmp_path, ORIGIN, NAMES)) as export:
        reached = []
        for done in export.run(log):
            reached.append(done.heads)
            read_log(lambda name: (tmp_path / "heads" / name).read_bytes())
            read_log(lambda name: (tmp_path / "mutations" / name).read_bytes())
    assert reached == [1, 2, 3]
    check(tmp_path, log)
    stopping = tmp_path / "stopping"
    with closing(TileExport(stopping, ORIGIN, NAMES)) as export:
        assert [done.heads for done in export.run(log, lambda: True)] == [1]


def test_a_run_that_was_killed_anywhere_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "STEP", 1)
    log, _ = published()
    write = TileFolder._write
    for fatal in range(1, 40):
        folder = tmp_path / str(fatal)
        left = [fatal]

        def dying(self: TileFolder, name: str, data: bytes, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            write(self, name, data)

        monkeypatch.setattr(TileFolder, "_write", dying)
        try:
            run(folder, log)
        except KeyboardInterrupt:
            monkeypatch.setattr(TileFolder, "_write", write)
            run(folder, log)
        else:
            break
        check(folder, log)
    assert fatal > 10


def test_another_event_log_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    directory = Directory()
    directory.grow("alice")
    run(tmp_path, directory.log)
    before = files(tmp_path)
    other = Directory()
    for users in (["bob"], ["carol"]):
        other.grow(*users)
        with pytest.raises(DivergenceError, match="is not what it was"):
            run(tmp_path, other.log)
        assert files(tmp_path) == before


def test_an_event_log_that_was_set_back_is_refused(tmp_path: Path) -> None:
    run(tmp_path, published()[0])
    before = files(tmp_path)
    short = Directory()
    short.grow("alice")
    with pytest.raises(RollbackError, match="the files have 3 epochs"):
        run(tmp_path, short.log)
    assert files(tmp_path) == before


@pytest.mark.parametrize("stream", [NAMES.heads, NAMES.mutations])
def test_an_event_log_that_contradicts_itself_is_refused(tmp_path: Path, stream: str) -> None:
    def change(where: str, revision: int, data: bytes) -> bytes:
        if where != stream or revision != 1:
            return data
        return data[:-1] + bytes([data[-1] ^ 1]) if stream == NAMES.mutations else _other_head(data)

    broken = copy(published()[0], change)
    with pytest.raises(KtError):
        run(tmp_path, broken)
    assert files(tmp_path) == {}


def _other_head(data: bytes) -> bytes:
    event = HeadEvent.decode(data)
    smh = event.smh_bytes[:-1] + bytes([event.smh_bytes[-1] ^ 1])
    return HeadEvent(smh, event.heads_checkpoint, event.mutations_checkpoint).encode()


def test_records_that_are_missing_are_named(tmp_path: Path) -> None:
    log = MemoryLog()
    for event in published()[0].read(NAMES.heads):
        log.append(NAMES.heads, ANY, [content_event(NAMES.heads, event.type, event.data)])
    with pytest.raises(DivergenceError, match="record 0 is missing"):
        run(tmp_path, log)


def test_a_folder_of_another_directory_is_refused(tmp_path: Path) -> None:
    log, _ = published()
    run(tmp_path, log)
    with pytest.raises(ConfigError, match=f"not of {OTHER_ORIGIN}/heads: name another folder"):
        run(tmp_path, log, OTHER_ORIGIN)


@pytest.mark.parametrize("name", ["checkpoint", "tile/0/000.p/3", "tile/entries/000.p/3"])
@pytest.mark.parametrize("log", ["heads", "mutations"])
def test_a_damaged_folder_is_not_continued(tmp_path: Path, log: str, name: str) -> None:
    run(tmp_path, published()[0])
    if log == "mutations":
        name = name.replace("3", str(_size(published()[0])))
    path = tmp_path / log / name
    data = path.read_bytes()
    # The root in a checkpoint, and an entry or a hash in the middle.
    at = data.index(b"\n", data.index(b"\n") + 1) + 5 if name == "checkpoint" else len(data) // 2
    for damaged in (data[:at], data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], b"", None):
        if damaged is None and name == "checkpoint":
            continue
        path.unlink() if damaged is None else path.write_bytes(damaged)
        with pytest.raises(ConfigError, match=str(tmp_path / log)):
            run(tmp_path, published()[0])
    path.write_bytes(data)
    assert run(tmp_path, published()[0]) == []


def test_without_its_checkpoint_a_folder_is_written_again(tmp_path: Path) -> None:
    run(tmp_path, published()[0])
    (tmp_path / "heads" / "checkpoint").unlink()
    run(tmp_path, published()[0])
    check(tmp_path, published()[0])


def test_two_exports_do_not_write_the_same_folder(tmp_path: Path) -> None:
    with closing(TileExport(tmp_path, ORIGIN, NAMES)), pytest.raises(LockedError, match="another kt export"):
        TileExport(tmp_path, ORIGIN, NAMES)
