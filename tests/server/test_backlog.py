"""A front end bounds what waits in the queue: submissions are refused, lookups go on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kt_es.client.trusted import Pinned
from kt_es.config.settings import load_settings
from kt_es.errors import UnavailableError
from kt_es.eventstore.streams import ANY, Event, content_event
from kt_es.formats.queue import EPOCH_MARKER, MAX_EVENT_ITEMS, MUTATIONS, encode_mutations
from kt_es.server.availability import MAX_BACKLOG, SAMPLES, Backlog
from tests import builders as b
from tests.reference.frontends import Front, front, submission
from tests.reference.memory_log import MemoryLog
from tests.reference.signed_streams import SignedStreams


class CountingLog(MemoryLog):
    """Counts the events that are read one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def read(self, stream: str, start: int = 0, limit: int | None = None) -> Iterator[Event]:
        self.reads += limit == 1
        return super().read(stream, start, limit)


class Bench:
    def __init__(self, limit: int) -> None:
        self.streams = SignedStreams(CountingLog())
        self.log = self.streams.log
        self.next = 0
        self.backlog = Backlog(lambda: self.log, self.streams.names, limit, lambda: self.next)

    def put(self, *counts: int) -> None:
        """Events of so many items each."""
        queue = self.streams.names.queue
        for number, count in enumerate(counts):
            items = [b"%d %d %d" % (self.log.last_revision(queue), number, item) for item in range(count)]
            self.log.append(queue, ANY, [content_event(queue, MUTATIONS, encode_mutations(items))])

    def look(self) -> int:
        self.backlog.look(self.log.last_revision(self.streams.names.queue))
        return self.backlog.items

    @property
    def reads(self) -> int:
        assert isinstance(self.log, CountingLog)
        return self.log.reads


def test_what_cannot_be_much_costs_no_read() -> None:
    bench = Bench(limit=10_000 * 16)
    bench.put(*[MAX_EVENT_ITEMS] * 38)
    bench.look()
    assert bench.reads == 0
    bench.backlog.check()


def test_what_is_just_below_the_limit_is_shown_as_such() -> None:
    bench = Bench(limit=200_000)
    bench.put(*[MAX_EVENT_ITEMS] * 780)
    bench.next = 1
    assert bench.look() == 780 * MAX_EVENT_ITEMS
    bench.backlog.check()


@pytest.mark.parametrize("items", [MAX_EVENT_ITEMS, 100, 3, 1])
def test_events_of_one_size_are_counted_exactly(items: int) -> None:
    bench = Bench(limit=1_000)
    bench.put(*[items] * 60)
    # The config that begins the queue is an event, too.
    bench.next = 1
    assert bench.look() == 60 * items
    assert 0 < bench.reads <= SAMPLES
    assert (bench.backlog.problem is not None) == (60 * items > 1_000)


def test_events_of_many_sizes_are_estimated() -> None:
    bench = Bench(limit=5_000)
    counts = [1 + 37 * number % MAX_EVENT_ITEMS for number in range(400)]
    bench.put(*counts)
    bench.next = 1
    assert 0.7 * sum(counts) < bench.look() < 1.3 * sum(counts)
    with pytest.raises(UnavailableError, match="items wait") as refused:
        bench.backlog.check()
    assert refused.value.retry_after == 5


def test_a_marker_behind_everything_does_not_hide_it() -> None:
    """It is the last event of a backlog whose signer went away, and one item."""
    bench = Bench(limit=5_000)
    bench.put(*[MAX_EVENT_ITEMS] * 50)
    queue = bench.streams.names.queue
    bench.log.append(queue, ANY, [content_event(queue, EPOCH_MARKER, b"marker")])
    bench.look()
    assert bench.backlog.problem is not None


def test_more_events_than_items_may_wait_need_no_look_into_them() -> None:
    bench = Bench(limit=30)
    bench.put(*[1] * 40)
    assert bench.look() == 41
    assert bench.reads == 0
    assert bench.backlog.problem is not None


def test_garbage_counts_as_one_item_each() -> None:
    bench = Bench(limit=30)
    queue = bench.streams.names.queue
    for number in range(25):
        bench.log.append(queue, ANY, [content_event(queue, MUTATIONS, b"\xff%d" % number)])
    assert bench.look() == 26
    bench.backlog.check()


def test_a_head_ends_it() -> None:
    bench = Bench(limit=50)
    bench.put(60)
    bench.look()
    assert bench.backlog.problem is not None
    head = bench.streams.epoch()
    bench.next = head.queue_next
    assert bench.look() == 0
    bench.backlog.check()


def test_a_replica_that_is_being_rebuilt_does_not_refuse() -> None:
    """It has committed nothing yet; what counts is the last head that is published."""
    bench = Bench(limit=50)
    bench.put(60)
    bench.streams.epoch()
    assert bench.look() == 0


def test_a_head_that_is_none_is_left_to_the_replica() -> None:
    bench = Bench(limit=50)
    bench.put(60)
    heads = bench.streams.names.heads
    bench.log.append(heads, ANY, [content_event(heads, "MapHead", b"\xff")])
    # The sixty and the config that begins the queue.
    assert bench.look() == 61


def test_what_this_process_adds_between_two_looks_counts() -> None:
    bench = Bench(limit=3)
    bench.look()
    for _ in range(3):
        bench.backlog.check()
        bench.backlog.added()
    with pytest.raises(UnavailableError):
        bench.backlog.check()
    bench.next = 1
    assert bench.look() == 0


# --- the front end ---------------------------------------------------------------------------------


LIMIT = 300


class Bounded(Front):
    def __init__(self, streams: SignedStreams) -> None:
        super().__init__(streams, max_backlog=LIMIT)

    def submit(self, user: str) -> int:
        self.answer = self.post("/v1/mutations", submission(user))
        return self.answer.status_code

    def metric(self, name: str) -> float:
        lines = self.get("/metrics").text.splitlines()
        (value,) = (line.split()[1] for line in lines if line.startswith(f"{name} "))
        return float(value)


@pytest.fixture
def running(streams: SignedStreams) -> Iterator[Bounded]:
    made = Bounded(streams)
    with front(streams, made=made):
        yield made


def wait_in_queue(streams: SignedStreams, count: int) -> None:
    items = [b"item %d" % number for number in range(count)]
    for at in range(0, count, 100):
        data = encode_mutations(items[at : at + 100])
        streams.log.append(streams.names.queue, ANY, [content_event(streams.names.queue, MUTATIONS, data)])


def test_submissions_are_refused_and_lookups_go_on_until_a_head(
    streams: SignedStreams, running: Bounded
) -> None:
    assert running.metric("kt_backlog_limit_items") == LIMIT
    wait_in_queue(streams, 400)
    running.running.watch.probe()
    openings = streams.names.openings(b.mutation("bob").entry.index)
    assert running.submit("bob") == 503
    assert running.answer.json()["reason"] == "unavailable"
    assert "about 400 items wait" in running.answer.json()["detail"]
    assert int(running.answer.headers["retry-after"]) == 5
    # Nothing was stored.
    assert streams.log.last_revision(openings) == -1
    assert running.metric("kt_backlog_items") == 400
    assert running.post("/v1/lookup", {"label": b.label_of("alice")}).status_code == 200
    ready = running.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert "400 items wait" in ready.json()["submissions"]
    streams.epoch()
    running.running.watch.probe()
    assert running.submit("bob") == 202
    assert running.get("/readyz").json() == {"status": "ready"}


def test_what_stands_already_is_answered_all_the_same(streams: SignedStreams, running: Bounded) -> None:
    wait_in_queue(streams, 400)
    running.running.watch.probe()
    assert running.submit("bob") == 503
    assert running.submit("alice") == 200


# --- the settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("line", "limit"), [("", MAX_BACKLOG), ("[frontend]\nmax_backlog = 7\n", 7)])
def test_the_limit_is_a_setting(tmp_path: Path, line: str, limit: int) -> None:
    path = tmp_path / "kt.toml"
    vkey = Pinned(b.ORIGIN, b.SIGNER_KEY).vkey
    path.write_text(f'directory = "people"\norigin = "{b.ORIGIN}"\nkey = "{vkey}"\n{line}')
    assert load_settings(path).frontend.max_backlog == limit == {"": 200_000}.get(line, 7)
