"""Concurrent submissions in few appends: within the event's limits, each with its own answer."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from kt_es.errors import AccessDeniedError, KtError, UnavailableError
from kt_es.eventstore.rights import first_acl, keeps_private
from kt_es.eventstore.streams import ANY, NO_STREAM, Append, NewEvent, content_event
from kt_es.formats.entries import OPENING
from kt_es.formats.queue import MAX_EVENT, MAX_EVENT_ITEMS, MAX_ITEM, decode_mutations
from kt_es.server.appender import Appender
from kt_es.server.availability import LogWatch
from kt_es.server.batcher import Batcher, Step, UnprotectedError
from tests.reference.frontends import until
from tests.reference.memory_log import MemoryLog

QUEUE = "kt_queue-people"


class GatedLog(MemoryLog):
    """Appends wait until the test opens the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.entered = threading.Event()

    def append(self, stream: str, expected: int, events: Sequence[NewEvent]) -> None:
        self.entered.set()
        assert self.gate.wait(30)
        super().append(stream, expected, events)


class Bench:
    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.now = 0.0
        self.watch = LogWatch(lambda: log, QUEUE, lambda _: None)
        self.watch.probe()
        self.appender = Appender(lambda: log, self.watch, lambda: self.now)
        self.batcher = Batcher(self.appender, QUEUE)
        self.thread = threading.Thread(target=self.batcher.run, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.batcher.close()
        self.thread.join(30)
        assert not self.thread.is_alive()

    def batches(self) -> list[list[bytes]]:
        return [decode_mutations(event.data) for event in self.log.read(QUEUE)]


def submit_during_an_append(bench: Bench, log: GatedLog, items: Sequence[bytes]) -> list[str]:
    """All of ``items`` are handed in while a first append is under way; the ids of their events."""
    with ThreadPoolExecutor(len(items) + 1) as pool:
        first = pool.submit(bench.batcher.append, b"first", 8.0)
        assert log.entered.wait(30)
        rest = [pool.submit(bench.batcher.append, item, 8.0) for item in items]
        until(lambda: len(bench.batcher._arrived) == len(items))
        log.gate.set()
        first.result(30)
        return [str(future.result(30)) for future in rest]


def test_what_comes_during_an_append_goes_into_the_next_one_together() -> None:
    log = GatedLog()
    bench = Bench(log)
    items = [bytes([n]) * 40 for n in range(50)]
    ids = submit_during_an_append(bench, log, items)
    first, second = bench.batches()
    assert (first, sorted(second)) == ([b"first"], items)
    assert set(ids) == {str(event.id) for event in log.read(QUEUE, 1)}
    bench.close()


def test_an_event_has_at_most_256_items() -> None:
    log = GatedLog()
    bench = Bench(log)
    submit_during_an_append(bench, log, [n.to_bytes(2) for n in range(MAX_EVENT_ITEMS + 1)])
    assert [len(batch) for batch in bench.batches()] == [1, MAX_EVENT_ITEMS, 1]
    bench.close()


def test_an_event_has_at_most_256_kib() -> None:
    log = GatedLog()
    bench = Bench(log)
    submit_during_an_append(bench, log, [bytes([n]) * MAX_ITEM for n in range(40)])
    assert sum(len(batch) for batch in bench.batches()) == 41
    assert all(len(event.data) <= MAX_EVENT for event in log.read(QUEUE))
    assert len(bench.batches()) == 4
    bench.close()


def test_an_outage_past_the_deadline_refuses_all_that_wait() -> None:
    log = MemoryLog()
    bench = Bench(log)
    log.away = True
    bench.now = 9.0
    for _ in range(2):
        with pytest.raises(UnavailableError):
            bench.batcher.append(b"item", 8.0)
    with pytest.raises(UnavailableError):
        bench.watch.check()
    log.away = False
    bench.watch.probe()
    bench.watch.check()
    bench.batcher.append(b"item", 16.0)
    assert bench.batches() == [[b"item"]]
    bench.close()


def test_an_error_that_repeating_does_not_mend_is_reported_at_once() -> None:
    class Closed(MemoryLog):
        def append(self, stream: str, expected: int, events: Sequence[NewEvent]) -> None:
            raise AccessDeniedError("append: the event log denies access")

    bench = Bench(Closed())
    with pytest.raises(KtError, match="denies access"):
        bench.batcher.append(b"item", 8.0)
    bench.close()


def test_after_closing_nothing_is_taken() -> None:
    bench = Bench(MemoryLog())
    bench.close()
    with pytest.raises(UnavailableError, match="stopping"):
        bench.batcher.append(b"item", 8.0)


def step(number: int, deadline: float = 8.0) -> Step:
    """A submission with an opening in a stream of its own, which is made private first."""
    stream = f"kt_openings-people.{number:064x}"
    opening = Append(stream, ANY, [content_event(stream, OPENING, b"opening %d" % number)])
    return Step(b"item %d" % number, deadline, first_acl(stream), opening)


def test_a_submission_becomes_private_then_opened_then_queued() -> None:
    log = MemoryLog()
    bench = Bench(log)
    steps = [step(number) for number in range(40)]
    futures = [bench.batcher.put(each) for each in steps]
    assert {str(future.result(30)) for future in futures} == {str(event.id) for event in log.read(QUEUE)}
    assert sorted(item for batch in bench.batches() for item in batch) == sorted(each.item for each in steps)
    for each in steps:
        assert each.opening is not None
        assert keeps_private(log.metadata(each.opening.stream).values)
        (event,) = log.read(each.opening.stream)
        assert (event.position or 0) < max(queued.position or 0 for queued in log.read(QUEUE))
    bench.close()


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("broken", [1, 2, 3])
def test_a_step_whose_outcome_is_unknown_is_repeated_as_the_same_event(broken: int, *, written: bool) -> None:
    log = MemoryLog()
    bench = Bench(log)
    log.break_appends(broken, written=written)
    futures = [bench.batcher.put(step(number)) for number in range(5)]
    for future in futures:
        future.result(30)
    assert sorted(item for batch in bench.batches() for item in batch) == [b"item %d" % n for n in range(5)]
    for number in range(5):
        assert len(list(log.read(f"kt_openings-people.{number:064x}"))) == 1
    bench.close()


def test_a_stream_with_metadata_gets_nothing_private() -> None:
    log = MemoryLog()
    bench = Bench(log)
    taken, free = step(1), step(2)
    assert taken.opening is not None
    log.set_metadata(taken.opening.stream, {"$maxCount": 1}, NO_STREAM)
    failed, queued = bench.batcher.put(taken), bench.batcher.put(free)
    with pytest.raises(UnprotectedError):
        failed.result(30)
    queued.result(30)
    assert list(log.read(taken.opening.stream)) == []
    assert bench.batches() == [[free.item]]
    bench.close()


def test_a_stop_gives_up_what_is_repeated() -> None:
    log = MemoryLog()
    bench = Bench(log)
    log.away = True
    future = bench.batcher.put(step(1))
    until(lambda: bench.watch.problem is not None)
    bench.appender.stop()
    with pytest.raises(UnavailableError):
        future.result(30)
    bench.close()
    with pytest.raises(UnavailableError):
        bench.batcher.put(step(2))
