"""A disk that fails under the log, both ways: failed and not written, failed but written."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from kt_es.errors import ConfigError, KtError, LockedError
from kt_es.node import server
from kt_es.node.server import NodeConfig, serve
from kt_es.node.store.log import Appended, NodeLog
from kt_es.node.store.reading import all_forwards, forwards
from kt_es.node.store.records import Proposed, revision_of
from kt_es.node.store.rocks import RocksStorage
from kt_es.node.store.storage import NoSpaceError, StorageError
from kt_es.node.store.streams import Expected, Wrong
from kt_es.node.store.transaction import Transaction
from tests.contracts.nodes import ServedNode

ANY = Expected.ANY


class FaultyStorage:
    """A storage that fails when told: ``at`` is "before" or "after" a write, or "sync"."""

    def __init__(self, path: Path) -> None:
        self._inner = inner = RocksStorage(path)
        self.get, self.get_many, self.close = inner.get, inner.get_many, inner.close
        self.scan, self.scan_back = inner.scan, inner.scan_back
        self.may_recover, self.recover = inner.may_recover, inner.recover
        self.at = ""
        self.syncs = 0
        self.may_sync = threading.Event()
        self.may_sync.set()

    def write(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes]) -> None:
        if self.at == "before":
            raise StorageError("No space left on device")
        self._inner.write(puts, deletes)
        if self.at == "after":
            raise StorageError("the write was interrupted")

    def sync(self) -> None:
        self.may_sync.wait()
        if self.at == "sync":
            raise StorageError("Input/output error")
        self._inner.sync()
        self.syncs += 1


def proposed(count: int = 1) -> list[Proposed]:
    return [Proposed(str(uuid4()), "T", "application/json", b"", b"{}") for _ in range(count)]


def on_log(
    path: Path, work: Callable[[NodeLog, FaultyStorage, list[StorageError]], Coroutine[Any, Any, None]]
) -> None:
    """Open a log on ``path``, run ``work`` on it, close it."""

    async def main() -> None:
        storage, failures = FaultyStorage(path), list[StorageError]()
        log = NodeLog(storage, lambda: 1000.0, failures.append)
        try:
            await work(log, storage, failures)
        finally:
            storage.may_sync.set()
            await log.close()

    asyncio.run(main())


def stream(log: NodeLog) -> list[int]:
    return [revision_of(stored) for stored in forwards(log, "s", 0).events]


@pytest.mark.parametrize(("at", "survivors"), [("before", {1}), ("after", {1, 3}), ("sync", {1, 3})])
def test_a_failed_write_is_not_acknowledged_and_stops_the_log(
    tmp_path: Path, at: str, survivors: set[int]
) -> None:
    async def fail(log: NodeLog, storage: FaultyStorage, failures: list[StorageError]) -> None:
        assert await log.append("s", ANY, proposed()) == Appended(0, 1)
        storage.at = at
        with pytest.raises(StorageError):
            await log.append("s", ANY, proposed(2))
        assert len(failures) == 1
        assert stream(log) == [0]
        assert len(all_forwards(log, 0).events) == 1
        storage.at = ""
        with pytest.raises(StorageError):
            await log.append("s", ANY, proposed())

    async def look(log: NodeLog, _storage: FaultyStorage, _failures: list[StorageError]) -> None:
        got = stream(log)
        assert got == list(range(len(got)))
        assert len(got) in survivors
        assert len(all_forwards(log, 0).events) == len(got)
        outcome = await log.append("s", len(got) - 1, proposed())
        assert outcome == Appended(len(got), len(got) + 1)

    on_log(tmp_path, fail)
    on_log(tmp_path, look)


def test_what_is_not_on_disk_is_not_read(tmp_path: Path) -> None:
    async def work(log: NodeLog, storage: FaultyStorage, _failures: list[StorageError]) -> None:
        await log.append("s", ANY, proposed())
        woken: list[int] = []
        log.wakeups.add("s", lambda: woken.append(log.head("s").last))
        storage.may_sync.clear()
        pending = asyncio.create_task(log.append("s", ANY, proposed(2)))
        while storage.get(b"Mposition") == (1).to_bytes(8, "big"):
            await asyncio.sleep(0)
        assert not pending.done()
        assert stream(log) == [0]
        assert len(all_forwards(log, 0).events) == 1
        assert log.head("s").last == 0
        storage.may_sync.set()
        assert await pending == Appended(2, 3)
        assert stream(log) == [0, 1, 2]
        assert woken == [2]

    on_log(tmp_path, work)


def test_writers_that_come_together_share_a_sync(tmp_path: Path) -> None:
    async def work(log: NodeLog, storage: FaultyStorage, _failures: list[StorageError]) -> None:
        appends = [log.append(f"s{number}", Expected.NO_STREAM, proposed()) for number in range(50)]
        outcomes = await asyncio.gather(*appends)
        assert [outcome.position for outcome in outcomes if isinstance(outcome, Appended)] == list(
            range(1, 51)
        )
        assert storage.syncs <= 2

    on_log(tmp_path, work)


def test_appends_decided_together_see_each_other(tmp_path: Path) -> None:
    async def work(log: NodeLog, _storage: FaultyStorage, _failures: list[StorageError]) -> None:
        same = proposed(2)
        outcomes = tuple(
            await asyncio.gather(
                log.append("s", Expected.NO_STREAM, same),
                log.append("s", Expected.NO_STREAM, same),
                log.append("s", Expected.NO_STREAM, proposed()),
                log.append("s", 1, proposed()),
                log.append("s", ANY, same),
            )
        )
        assert outcomes == (Appended(1, 2), Appended(1, 2), Wrong(1), Appended(2, 3), Appended(1, 2))

    on_log(tmp_path, work)


def test_a_command_that_cannot_be_run_fails_alone(tmp_path: Path) -> None:
    async def work(log: NodeLog, storage: FaultyStorage, failures: list[StorageError]) -> None:
        def broken(tx: Transaction) -> None:
            tx.append("t", proposed())
            raise RecursionError("too deep")

        first, second, third = await asyncio.gather(
            log.append("s", Expected.NO_STREAM, proposed()),
            log.run(broken),
            log.append("s", 0, proposed()),
            return_exceptions=True,
        )
        assert (first, third) == (Appended(0, 1), Appended(1, 2))
        assert isinstance(second, RecursionError)
        assert not failures
        assert storage.syncs == 1
        assert not log.head("t").exists

    on_log(tmp_path, work)


def test_one_process_holds_the_data(tmp_path: Path) -> None:
    with ServedNode(NodeConfig(data=tmp_path, port=0)), pytest.raises(LockedError, match="in use"):
        serve(NodeConfig(data=tmp_path, port=0), threading.Event())
    with ServedNode(NodeConfig(data=tmp_path, port=0)) as node:
        assert node.address.startswith("127.0.0.1:")


def test_data_that_are_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("not a directory")
    with pytest.raises(ConfigError, match="cannot be opened"):
        RocksStorage(tmp_path)
    assert issubclass(StorageError, KtError)


def test_a_stop_ends_a_node_that_waits_for_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()

    def full(*_: object) -> None:
        stop.set()
        raise NoSpaceError

    monkeypatch.setattr(server, "RunningNode", full)
    serve(NodeConfig(data=tmp_path, port=0), stop)
