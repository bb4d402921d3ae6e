"""Every write and every sync of a busy log fails once: before it, after it, and as an unknown error.

Or the disk is full at a write, and has space again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from uuid import UUID

import pytest

from kt_es.node.groups.registry import Groups
from kt_es.node.groups.settings import GroupSettings
from kt_es.node.ops.checking import check
from kt_es.node.store.log import Appended, NodeLog
from kt_es.node.store.reading import all_forwards, forwards
from kt_es.node.store.records import Proposed, id_of, name_of, revision_of, type_of
from kt_es.node.store.rocks import RocksStorage
from kt_es.node.store.storage import NoSpaceError, StorageError
from kt_es.node.store.streams import Expected

MODES = ("not written", "written", "sync failed", "sync failed in a way nobody expects", "read failed")


class FailingStorage:
    """Fails at its ``number``-th write, sync or read (from 1), in one of ``MODES``; never: 0."""

    def __init__(self, path: Path, mode: str = "", number: int = 0) -> None:
        self._inner = inner = RocksStorage(path)
        self.get_many, self.close = inner.get_many, inner.close
        self.scan, self.scan_back = inner.scan, inner.scan_back
        self._mode = mode
        self._number = number
        self.counts = {"write": 0, "sync": 0, "read": 0}
        self.failed = False

    def _now(self, what: str, mode: str) -> bool:
        due = mode == self._mode and self.counts[what] == self._number
        self.failed = self.failed or due
        return due

    def get(self, key: bytes) -> bytes | None:
        self.counts["read"] += 1
        if self._now("read", "read failed"):
            raise StorageError("checksum mismatch")
        return self._inner.get(key)

    def write(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes]) -> None:
        self.counts["write"] += 1
        if self._now("write", "no space"):
            raise NoSpaceError
        if self._now("write", "not written"):
            raise StorageError("Input/output error")
        self._inner.write(puts, deletes)
        if self._now("write", "written"):
            raise StorageError("Input/output error")

    def sync(self) -> None:
        self.counts["sync"] += 1
        if self._now("sync", "sync failed"):
            raise StorageError("Input/output error")
        if self._now("sync", "sync failed in a way nobody expects"):
            raise RuntimeError("out of threads")
        self._inner.sync()

    def may_recover(self) -> bool:
        return True

    def recover(self) -> None:
        """The next write does not fail any more."""


def proposed(number: int, count: int = 1) -> list[Proposed]:
    return [
        Proposed(str(UUID(int=number << 16 | at)), "T", "application/json", b"", b"{}") for at in range(count)
    ]


def work(log: NodeLog, groups: Groups) -> list[Callable[[], Awaitable[object]]]:
    """What a log is asked for, one after the other: every kind of write."""
    return [
        lambda: log.append("s", Expected.NO_STREAM, proposed(1, 3)),
        lambda: log.append("s", 2, proposed(2)),
        lambda: groups.create("s", "g", GroupSettings()),
        lambda: log.append("$$s", Expected.ANY, [metadata(3)]),
        lambda: log.append("t", Expected.ANY, proposed(4, 2)),
        lambda: log.delete("t", Expected.ANY, hard=False),
        lambda: log.append("t", Expected.ANY, proposed(5)),
        lambda: groups.update("s", "g", GroupSettings(max_retry_count=3)),
        lambda: log.append("u", Expected.ANY, proposed(6)),
        lambda: log.delete("u", 0, hard=True),
        lambda: groups.delete("s", "g"),
        lambda: log.append("s", 3, proposed(7, 2)),
    ]


def metadata(number: int) -> Proposed:
    return Proposed(str(UUID(int=number << 16)), "$metadata", "application/json", b"", b'{"$tb": 1}')


async def run(storage: FailingStorage, failures: list[StorageError]) -> list[object]:
    """Outcomes of the work, as far as it went."""
    log = NodeLog(storage, lambda: 1000.0, failures.append)
    groups = Groups(log)
    outcomes: list[object] = []
    try:
        for step in work(log, groups):
            outcomes.append(await step())
    except StorageError:
        # From now on nothing is taken, and nothing hangs.
        with pytest.raises(StorageError):
            await asyncio.wait_for(log.append("later", Expected.ANY, proposed(99)), 20)
    else:
        assert not storage.failed
    finally:
        await asyncio.wait_for(log.close(), 20)
    return outcomes


def spelled(stored: bytes) -> str:
    # The node gives its own events random ids.
    event_id = id_of(stored) if type_of(stored) == "T" else type_of(stored)
    return f"{revision_of(stored)}@{name_of(stored)} {event_id}"


async def contents(path: Path) -> tuple[list[str], list[str], int]:
    """The events in $all, those in s, how many groups."""
    storage = RocksStorage(path)
    log = NodeLog(storage, lambda: 1000.0, lambda _error: None)
    groups = len(Groups(log).all())
    everything = [spelled(stored) for stored in all_forwards(log, 0).events]
    stream = [spelled(stored) for stored in forwards(log, "s", 0).events]
    # It goes on as if nothing had been.
    assert isinstance(await log.append("afterwards", Expected.NO_STREAM, proposed(98)), Appended)
    await log.close()
    return everything, stream, groups


def counts(tmp_path: Path) -> dict[str, int]:
    storage = FailingStorage(tmp_path / "counted")
    outcomes = asyncio.run(run(storage, []))
    assert len(outcomes) == 12
    return storage.counts


@pytest.mark.parametrize("mode", MODES)
def test_the_log_stops_and_keeps_what_was_acknowledged(tmp_path: Path, mode: str) -> None:
    what = {"not written": "write", "written": "write", "read failed": "read"}.get(mode, "sync")
    total = counts(tmp_path)[what]
    assert total >= 10
    done = [asyncio.run(prefix(tmp_path / f"prefix-{length}", length)) for length in range(13)]
    for number in range(3 if what == "read" else 1, total + 1):
        path = tmp_path / str(number)
        failures: list[StorageError] = []
        storage = FailingStorage(path, mode, number)
        outcomes = asyncio.run(run(storage, failures))
        assert storage.failed
        assert len(failures) <= 1
        if what != "read":
            assert len(failures) == 1
        assert check(path).sound
        # What was acknowledged is there; the step in doubt is there entirely or not at all.
        found = asyncio.run(contents(path))
        assert found in (done[len(outcomes)], done[min(len(outcomes) + 1, 12)]), number
        if mode == "not written":
            assert found == done[len(outcomes)]


async def prefix(path: Path, length: int) -> tuple[list[str], list[str], int]:
    """What there is after the first steps alone."""
    storage = RocksStorage(path)
    log = NodeLog(storage, lambda: 1000.0, lambda _error: None)
    for step in work(log, Groups(log))[:length]:
        await step()
    await log.close()
    return await contents(path)


def test_what_a_full_disk_refuses_is_not_there_and_can_be_repeated(tmp_path: Path) -> None:
    whole = asyncio.run(prefix(tmp_path / "whole", 12))

    async def run_again(storage: FailingStorage, failures: list[StorageError]) -> int:
        log = NodeLog(storage, lambda: 1000.0, failures.append)
        refused = 0
        for step in work(log, Groups(log)):
            before = everything(log)
            try:
                await step()
            except NoSpaceError:
                refused += 1
                assert everything(log) == before
                with pytest.raises(NoSpaceError):
                    await log.append("later", Expected.ANY, proposed(99))
                await asyncio.wait_for(log.outage.over(), 20)
                await step()
        await asyncio.wait_for(log.close(), 20)
        return refused

    for number in range(1, counts(tmp_path)["write"] + 1):
        path = tmp_path / str(number)
        failures: list[StorageError] = []
        assert asyncio.run(run_again(FailingStorage(path, "no space", number), failures)) == 1
        assert not failures
        assert check(path).sound
        assert asyncio.run(contents(path)) == whole, number


def everything(log: NodeLog) -> list[str]:
    return [spelled(stored) for stored in all_forwards(log, 0).events]


def test_a_full_disk_refuses_a_whole_commit(tmp_path: Path) -> None:
    async def main() -> None:
        failures: list[StorageError] = []
        log = NodeLog(FailingStorage(tmp_path, "no space", 1), lambda: 1000.0, failures.append)

        async def append_all() -> set[type]:
            appends = [log.append(f"s{at}", Expected.NO_STREAM, proposed(at)) for at in range(9)]
            return {type(outcome) for outcome in await asyncio.gather(*appends, return_exceptions=True)}

        assert await append_all() == {NoSpaceError}
        assert not any(log.head(f"s{at}").exists for at in range(9))
        await asyncio.wait_for(log.outage.over(), 20)
        assert await append_all() == {Appended}
        assert not failures
        # Stopping does not wait for space.
        await asyncio.wait_for(log.close(), 20)

    asyncio.run(main())


def test_a_reader_that_cannot_be_notified_stops_the_log_and_the_answer_still_comes(tmp_path: Path) -> None:
    async def main() -> None:
        failures: list[StorageError] = []
        log = NodeLog(RocksStorage(tmp_path), lambda: 1000.0, failures.append)

        def broken() -> None:
            raise StorageError("checksum mismatch")

        log.wakeups.add("s", broken)
        outcome = await asyncio.wait_for(log.append("s", Expected.ANY, proposed(1)), 20)
        assert outcome == Appended(0, 1)
        with pytest.raises(StorageError):
            await asyncio.wait_for(log.append("s", Expected.ANY, proposed(2)), 20)
        assert len(failures) == 1
        await asyncio.wait_for(log.close(), 20)

    asyncio.run(main())


def test_a_group_made_anew_in_the_same_commit_stays(tmp_path: Path) -> None:
    async def main() -> None:
        log = NodeLog(RocksStorage(tmp_path), lambda: 1000.0, lambda _error: None)
        groups = Groups(log)
        await groups.create("s", "g", GroupSettings())
        await asyncio.gather(
            groups.delete("s", "g"), groups.create("s", "g", GroupSettings(max_retry_count=3))
        )
        await log.close()
        log = NodeLog(RocksStorage(tmp_path), lambda: 1000.0, lambda _error: None)
        assert [runner.settings.max_retry_count for runner in Groups(log).all()] == [3]
        await log.close()

    asyncio.run(main())
