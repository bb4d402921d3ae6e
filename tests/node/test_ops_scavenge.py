"""Scavenging: what it takes away, what it leaves, and that nothing else changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from kt_es.node.ops.scavenge import SLICE_EVENTS, Scavenged, scavenge
from kt_es.node.store.log import Appended, NodeLog
from kt_es.node.store.reading import all_backwards, all_forwards, backwards, forwards
from kt_es.node.store.records import Proposed, name_of, position_of, revision_of
from kt_es.node.store.rocks import RocksStorage
from kt_es.node.store.storage import LAST_POSITION, range_key
from kt_es.node.store.streams import Expected
from tests.reference.clocks import Clock

ANY = Expected.ANY


class Bench:
    """A log in this process and what the tests ask of it."""

    def __init__(self, log: NodeLog, storage: RocksStorage, clock: Clock) -> None:
        self.log = log
        self.storage = storage
        self.clock = clock

    async def append(self, name: str, count: int, expected: int | Expected = ANY) -> list[Proposed]:
        events = [Proposed(str(uuid4()), "T", "application/json", b"", b"x" * 100) for _ in range(count)]
        await self.again(name, events, expected)
        return events

    async def again(self, name: str, events: list[Proposed], expected: int | Expected = ANY) -> Appended:
        outcome = await self.log.append(name, expected, events)
        assert isinstance(outcome, Appended), outcome
        return outcome

    async def metadata(self, name: str, **values: int) -> None:
        data = json.dumps({f"${key}": value for key, value in values.items()}).encode()
        await self.again(f"$${name}", [Proposed(str(uuid4()), "$metadata", "application/json", b"", data)])

    async def scavenge(self) -> Scavenged:
        return await scavenge(self.log, self.storage.compact)

    def revisions(self, name: str) -> list[int]:
        found, at, more = [], 0, True
        while more:
            chunk = forwards(self.log, name, at)
            found += [revision_of(stored) for stored in chunk.events]
            at, more = chunk.following, chunk.more
        down, at, more = [], 2**63 - 1, True
        while more:
            chunk = backwards(self.log, name, at)
            down += [revision_of(stored) for stored in chunk.events]
            at, more = chunk.following, chunk.more
        assert self.log.head(name).tombstoned or down == found[::-1]
        return found

    def everything(self) -> list[tuple[int, str, int]]:
        """(position, stream, revision) of all events, the same in both directions."""
        found, at, more = [], 0, True
        while more:
            chunk = all_forwards(self.log, at)
            found += [(position_of(one), name_of(one), revision_of(one)) for one in chunk.events]
            at, more = chunk.following, chunk.more
        down, at, more = [], self.log.position + 1, True
        while more:
            chunk = all_backwards(self.log, at)
            down += [(position_of(one), name_of(one), revision_of(one)) for one in chunk.events]
            at, more = chunk.following, chunk.more
        assert down == found[::-1]
        return found

    def ranges(self) -> int:
        return len(list(self.storage.scan(range_key(0), range_key(LAST_POSITION))))


Test = Callable[[Bench], Awaitable[Any]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Test], None]:
    """Runs a test on a log in ``tmp_path``; a second call opens the same log again."""

    async def on_a_log(test: Test) -> None:
        storage, clock = RocksStorage(tmp_path), Clock()
        failures: list[object] = []
        log = NodeLog(storage, clock, failures.append)
        try:
            await test(Bench(log, storage, clock))
        finally:
            await log.close()
        assert not failures

    return lambda test: asyncio.run(on_a_log(test))


def test_what_truncation_and_count_hide_goes_and_the_rest_keeps_its_place(run: Any) -> None:
    async def test(bench: Bench) -> None:
        for _ in range(10):
            await bench.append("truncated", 7)
            await bench.append("counted", 3)
            await bench.append("kept", 1)
        await bench.metadata("truncated", tb=33)
        await bench.metadata("counted", maxCount=4)
        before = bench.everything()
        result = await bench.scavenge()
        assert (result.streams, result.events) == (2, 33 + 26)
        assert result.bytes > 59 * 100
        assert bench.revisions("truncated") == list(range(33, 70))
        assert bench.revisions("counted") == list(range(26, 30))
        assert bench.revisions("kept") == list(range(10))
        hidden = {("truncated", at) for at in range(33)} | {("counted", at) for at in range(26)}
        assert bench.everything() == [one for one in before if one[1:] not in hidden]
        assert (await bench.scavenge()).events == 0

    run(test)


def test_an_append_begins_at_the_first_event_that_is_left_and_is_forgotten_with_the_last(run: Any) -> None:
    async def test(bench: Bench) -> None:
        for _ in range(5):
            await bench.append("s", 10)
        await bench.metadata("s", tb=25)
        assert bench.ranges() == 6
        await bench.scavenge()
        assert bench.ranges() == 4
        assert bench.everything()[0] == (26, "s", 25)
        # From the middle of what is gone, and of the append that was cut.
        for start in (1, 15, 24):
            assert position_of(all_forwards(bench.log, start).events[0]) == 26
        assert [position_of(one) for one in all_backwards(bench.log, 28).events] == [27, 26]

    run(test)


def test_deleted_and_tombstoned_streams_leave_nothing_and_numbering_goes_on(run: Any) -> None:
    async def test(bench: Bench) -> None:
        await bench.append("deleted", 20)
        await bench.append("tombstoned", 20)
        await bench.append("again", 20)
        await bench.log.delete("deleted", ANY, hard=False)
        await bench.log.delete("tombstoned", ANY, hard=True)
        await bench.log.delete("again", ANY, hard=False)
        await bench.append("again", 2)
        assert (await bench.scavenge()).events >= 60
        left = bench.everything()
        assert [name for _, name, _ in left if name[0] != "$"] == ["tombstoned", "again", "again"]
        assert (await bench.scavenge()).events == 0

    async def afterwards(bench: Bench) -> None:
        assert bench.revisions("deleted") == []
        assert bench.revisions("again") == [20, 21]
        await bench.append("deleted", 1)
        assert bench.revisions("deleted") == [20]
        assert not isinstance(await bench.log.append("tombstoned", ANY, []), Appended)
        # Its own metadata say the same as before.
        await bench.append("again", 1, 21)
        assert bench.revisions("again") == [20, 21, 22]

    run(test)
    run(afterwards)


def test_what_has_expired_goes_up_to_the_first_that_has_not(run: Any) -> None:
    async def test(bench: Bench) -> None:
        await bench.metadata("s", maxAge=100)
        await bench.append("s", 5)
        bench.clock.now += 60
        await bench.append("s", 5)
        assert (await bench.scavenge()).events == 0
        bench.clock.now += 60
        assert (await bench.scavenge()).events == 5
        assert bench.revisions("s") == [5, 6, 7, 8, 9]
        bench.clock.now += 60
        assert (await bench.scavenge()).events == 5
        await bench.append("s", 1, 9)
        assert bench.revisions("s") == [10]

    run(test)


def test_metadata_that_show_more_again_bring_nothing_back_and_are_read_at_once(run: Any) -> None:
    async def test(bench: Bench) -> None:
        await bench.append("s", 1000)
        await bench.metadata("s", tb=990)
        await bench.scavenge()
        await bench.metadata("s", tb=0)
        assert forwards(bench.log, "s", 0).events
        assert bench.revisions("s") == list(range(990, 1000))
        assert (await bench.scavenge()).events == 1  # the metadata of before

    run(test)


def test_metadata_keep_their_last_event_whatever_hides_it(run: Any) -> None:
    async def test(bench: Bench) -> None:
        for before in range(5):
            await bench.metadata("s", tb=before)
        await bench.append("s", 8)
        await bench.metadata("$$s", tb=5)
        await bench.scavenge()
        assert [revision for _, name, revision in bench.everything() if name == "$$s"] == [4]
        await bench.log.delete("s", ANY, hard=False)
        await bench.append("s", 1)
        assert bench.revisions("s") == [8]

    run(test)


def test_ids_of_what_is_gone_are_forgotten_and_later_ones_are_not(run: Any) -> None:
    async def test(bench: Bench) -> None:
        first = await bench.append("s", 3)
        await bench.metadata("s", tb=3)
        await bench.again("s", first[:1])  # hidden ones do not count as written
        await bench.scavenge()
        repeated = await bench.again("s", first[:1])
        assert (repeated.revision, bench.revisions("s")) == (3, [3])
        assert (await bench.again("s", first[1:2])).revision == 4
        ids = len(list(bench.storage.scan(b"I", b"J")))
        await bench.log.delete("s", ANY, hard=True)
        await bench.scavenge()
        assert len(list(bench.storage.scan(b"I", b"J"))) <= ids - 2 + 1

    run(test)


def test_writers_go_on_between_slices(run: Any) -> None:
    async def test(bench: Bench) -> None:
        for _ in range(4):
            await bench.append("old", SLICE_EVENTS)
        await bench.append("s", 1)
        await bench.metadata("old", tb=4 * SLICE_EVENTS - 1)
        scavenging = asyncio.create_task(bench.scavenge())
        written = 0
        while not scavenging.done():
            await bench.append("s", 1, written)
            await bench.append("old", 1)
            written += 1
        assert written > 3
        assert (await scavenging).events == 4 * SLICE_EVENTS - 1
        assert bench.revisions("s") == list(range(written + 1))
        assert len(bench.revisions("old")) == written + 1

    run(test)


def test_space_comes_back(run: Any) -> None:
    async def test(bench: Bench) -> None:
        for number in range(40):
            data = [Proposed(str(uuid4()), "T", "x", b"", uuid4().bytes * 6000) for _ in range(8)]
            # Incompressible as a whole: each has a key of its own over its length.
            noise = [one._replace(data=_noise(one.id, 96_000)) for one in data]
            await bench.again(f"s{number % 4}", noise)
        for number in range(3):
            await bench.log.delete(f"s{number}", ANY, hard=False)
        before = bench.storage.size()
        result = await bench.scavenge()
        assert result.events == 240
        assert bench.storage.size() < before / 2
        assert len(bench.revisions("s3")) == 80

    run(test)


def _noise(seed: str, size: int) -> bytes:
    from random import Random

    return Random(seed).randbytes(size)
