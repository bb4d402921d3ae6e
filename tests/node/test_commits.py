"""On which thread a group commit waits for the disk, and that it makes no difference to what is promised."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest

from kt_es.node.store.commits import QUICK, GroupCommit
from kt_es.node.store.storage import StorageError
from kt_es.node.store.streams import StreamHead
from kt_es.node.store.transaction import Transaction

ENOUGH = 64  # syncs after which the average has come down, or up


class Disk:
    """Keeps nothing but when it was asked what; a sync takes ``seconds`` by ``clock``."""

    def __init__(self) -> None:
        self.seconds = QUICK / 10
        self.fails: Exception | None = None
        self.may_sync = threading.Event()
        self.may_sync.set()
        self.threads: list[int] = []
        self._now = 0.0

    def clock(self) -> float:
        return self._now

    def get(self, key: bytes) -> bytes | None:
        return None

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [None for _ in keys]

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(())

    scan_back = scan

    def write(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes]) -> None:
        pass

    def sync(self) -> None:
        self.may_sync.wait()
        self._now += self.seconds
        self.threads.append(threading.get_ident())
        if self.fails is not None:
            raise self.fails

    def may_recover(self) -> bool:
        raise NotImplementedError

    def recover(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass

    @property
    def on_loop(self) -> bool:
        """Whether the last sync was waited for on the thread of the test's loop."""
        return self.threads[-1] == threading.get_ident()


class Nothing:
    """A state with nothing in it; counts what was published and announced."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.published = self.announced = 0

    def begin(self) -> Transaction:
        return Transaction(self._disk, lambda _: StreamHead(), 0, 0)

    def hold(self, tx: Transaction) -> None:
        pass

    def release(self) -> None:
        raise NotImplementedError

    def publish(self, tx: Transaction, seconds: float) -> None:
        self.published += 1

    def announce(self, tx: Transaction) -> None:
        self.announced += 1


def put(tx: Transaction) -> int:
    tx.put(b"k", b"v")
    return len(tx.puts)


def with_commits(
    work: Callable[[GroupCommit, Disk, Nothing, list[StorageError]], Coroutine[Any, Any, None]],
) -> None:
    async def main() -> None:
        disk, failures = Disk(), list[StorageError]()
        state = Nothing(disk)
        commits = GroupCommit(disk, state, failures.append, disk.clock)
        try:
            await work(commits, disk, state, failures)
        finally:
            disk.may_sync.set()
            await asyncio.wait_for(commits.close(), 20)

    asyncio.run(main())


async def warm(commits: GroupCommit, disk: Disk) -> None:
    for _ in range(ENOUGH):
        await commits.run(put)
    assert disk.on_loop


def test_a_disk_is_slow_until_it_has_shown_otherwise() -> None:
    async def work(commits: GroupCommit, disk: Disk, state: Nothing, _failures: list[StorageError]) -> None:
        await commits.run(put)
        assert not disk.on_loop
        await warm(commits, disk)
        assert state.published == state.announced == len(disk.threads) == ENOUGH + 1

    with_commits(work)


@pytest.mark.parametrize("seconds", [2 * QUICK, 100 * QUICK])
def test_a_disk_that_gets_slow_holds_nobody_else_up(seconds: float) -> None:
    async def work(commits: GroupCommit, disk: Disk, _state: Nothing, _failures: list[StorageError]) -> None:
        await warm(commits, disk)
        disk.seconds = seconds
        for _ in range(ENOUGH):
            await commits.run(put)
        assert not disk.on_loop
        disk.may_sync.clear()
        pending = asyncio.create_task(commits.run(put))
        for _ in range(10):
            await asyncio.sleep(0)  # others run while the disk is waited for
        assert not pending.done()
        disk.may_sync.set()
        assert await pending == 1
        disk.seconds = QUICK / 10
        for _ in range(4 * ENOUGH):
            await commits.run(put)
        assert disk.on_loop

    with_commits(work)


def test_one_slow_sync_of_many_changes_nothing() -> None:
    async def work(commits: GroupCommit, disk: Disk, _state: Nothing, _failures: list[StorageError]) -> None:
        await warm(commits, disk)
        disk.seconds = 5 * QUICK
        await commits.run(put)
        disk.seconds = QUICK / 10
        await commits.run(put)
        assert disk.on_loop

    with_commits(work)


def test_commands_that_came_meanwhile_share_the_next_sync() -> None:
    async def work(commits: GroupCommit, disk: Disk, _state: Nothing, _failures: list[StorageError]) -> None:
        await warm(commits, disk)
        before = len(disk.threads)
        assert await asyncio.gather(*(commits.run(put) for _ in range(50))) == list(range(1, 51))
        assert len(disk.threads) == before + 1
        assert disk.on_loop

    with_commits(work)


@pytest.mark.parametrize("error", [StorageError("Input/output error"), RuntimeError("out of threads")])
def test_a_sync_that_fails_on_the_loop_stops_the_commits(error: Exception) -> None:
    async def work(commits: GroupCommit, disk: Disk, state: Nothing, failures: list[StorageError]) -> None:
        await warm(commits, disk)
        published = state.published
        disk.fails = error
        outcomes = await asyncio.gather(*(commits.run(put) for _ in range(3)), return_exceptions=True)
        assert disk.on_loop
        assert all(isinstance(outcome, StorageError) for outcome in outcomes)
        assert len(failures) == 1
        assert str(error) in str(failures[0])
        assert state.published == published
        disk.fails = None
        with pytest.raises(StorageError):
            await commits.run(put)

    with_commits(work)
