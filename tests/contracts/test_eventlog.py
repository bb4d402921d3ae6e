"""What every event log promises, asked of the one in memory and of EventStoreDB's protocol to a node."""

from __future__ import annotations

import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import pytest

from kt_es.errors import KtError, WrongRevisionError
from kt_es.eventstore.connecting import connect
from kt_es.eventstore.streams import (
    ANY,
    MAX_APPEND,
    NO_STREAM,
    Append,
    Event,
    EventLog,
    NewEvent,
    Subscription,
)
from tests.reference.memory_log import MemoryLog


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    data = tmp_path_factory.mktemp("node")
    command = [sys.executable, "-m", "kt_es.node", "--data", str(data), "--listen", "127.0.0.1:0"]
    with (Path(data) / "stderr").open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        try:
            yield f"esdb://{process.stdout.readline().strip()}?Tls=false"
        finally:
            process.terminate()
            process.wait(20)
            process.stdout.close()


@pytest.fixture(params=["memory", "node"])
def log(request: pytest.FixtureRequest) -> Iterator[EventLog]:
    opened: EventLog
    opened = MemoryLog() if request.param == "memory" else connect(request.getfixturevalue("node"))
    yield opened
    opened.close()


@pytest.fixture
def stream() -> str:
    """A stream of its own for each test: the node is shared."""
    return f"kt_test-{uuid.uuid4().hex}"


def new(text: str, kind: str = "T") -> NewEvent:
    return NewEvent(kind, text.encode(), uuid.uuid4())


def texts(events: Iterator[Event]) -> list[str]:
    return [event.data.decode() for event in events]


class Listening:
    """A subscription read in a thread; ``next`` gives its events one by one."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._events: Queue[Event | None] = Queue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for event in self._subscription:
            self._events.put(event)
        self._events.put(None)

    def next(self) -> Event:
        event = self._events.get(timeout=30)
        assert event is not None
        return event

    def next_of(self, prefix: str) -> Event:
        while True:
            event = self.next()
            if event.stream.startswith(prefix):
                return event

    def stop(self) -> None:
        self._subscription.stop()
        while self._events.get(timeout=30) is not None:
            pass
        self._thread.join(30)


def test_reads_what_was_appended(log: EventLog, stream: str) -> None:
    events = [new("a", "First"), new("b"), new("c")]
    log.append(stream, NO_STREAM, events[:1])
    log.append(stream, 0, events[1:])
    read = list(log.read(stream))
    assert [(event.revision, event.type, event.data, event.id) for event in read] == [
        (revision, event.type, event.data, event.id) for revision, event in enumerate(events)
    ]
    assert {event.stream for event in read} == {stream}
    assert texts(log.read(stream, 1)) == ["b", "c"]
    assert texts(log.read(stream, 1, 1)) == ["b"]
    assert texts(log.read(stream, 3)) == []
    assert log.last_revision(stream) == 2
    last = log.last_event(stream)
    assert last is not None
    assert last.data == b"c"


def test_a_missing_stream_is_empty(log: EventLog, stream: str) -> None:
    assert list(log.read(stream)) == []
    assert log.last_revision(stream) == -1
    assert log.last_event(stream) is None


@pytest.mark.parametrize("expected", [NO_STREAM, 0, 5])
def test_another_revision_than_expected_is_refused(log: EventLog, stream: str, expected: int) -> None:
    log.append(stream, NO_STREAM, [new("a"), new("b")])
    with pytest.raises(WrongRevisionError):
        log.append(stream, expected, [new("c")])
    assert texts(log.read(stream)) == ["a", "b"]


def test_a_stream_that_is_not_there_has_no_revision_0(log: EventLog, stream: str) -> None:
    with pytest.raises(WrongRevisionError):
        log.append(stream, 0, [new("a")])


@pytest.mark.parametrize("expected", [NO_STREAM, ANY])
def test_the_same_append_again_is_the_same(log: EventLog, stream: str, expected: int) -> None:
    events = [new("a"), new("b")]
    log.append(stream, expected, events)
    log.append(stream, expected, events)
    log.append(stream, ANY, [new("c")])
    log.append(stream, expected, events)
    assert texts(log.read(stream)) == ["a", "b", "c"]


def test_the_same_append_again_at_an_exact_revision_is_the_same(log: EventLog, stream: str) -> None:
    log.append(stream, NO_STREAM, [new("a")])
    events = [new("b"), new("c")]
    log.append(stream, 0, events)
    log.append(stream, 0, events)
    assert texts(log.read(stream)) == ["a", "b", "c"]


def test_an_append_that_is_too_large_is_refused_whole(log: EventLog, stream: str) -> None:
    with pytest.raises(KtError):
        log.append(stream, ANY, [NewEvent("T", bytes(MAX_APPEND // 2 + 1), uuid.uuid4()) for _ in range(2)])
    assert log.last_revision(stream) == -1


def test_many_appends_have_an_outcome_each(log: EventLog, stream: str) -> None:
    events = [new(f"{number}") for number in range(40)]
    for _ in range(2):
        # The second time they are the same appends, which are in their streams already.
        appends = [Append(f"{stream}.{number}", ANY, [event]) for number, event in enumerate(events)]
        appends.insert(7, Append(stream, 5, [new("not at this revision")]))
        appends.insert(9, Append(stream, ANY, [NewEvent("T", bytes(MAX_APPEND + 1), uuid.uuid4())]))
        outcomes = list(log.append_all(appends))
        assert isinstance(outcomes.pop(9), KtError)
        assert isinstance(outcomes.pop(7), WrongRevisionError)
        assert outcomes == [None] * len(events)
    for number in range(40):
        assert texts(log.read(f"{stream}.{number}")) == [f"{number}"]
    assert texts(log.read(stream)) == []
    assert list(log.append_all([])) == []


def test_many_appends_may_set_metadata(log: EventLog, stream: str) -> None:
    acl = {"$acl": {"$r": ["frontend"]}}
    streams = [f"{stream}.{number}" for number in range(3)]
    appends = [Append(name, NO_STREAM, metadata=acl) for name in streams]
    assert list(log.append_all(appends)) == [None] * 3
    assert [log.metadata(name).values for name in streams] == [acl] * 3
    other = log.append_all([Append(name, NO_STREAM, metadata={"$maxCount": 1}) for name in streams])
    assert [type(outcome) for outcome in other] == [WrongRevisionError] * 3
    assert [log.metadata(name).values for name in streams] == [acl] * 3


def test_a_subscription_brings_what_is_there_and_what_comes(log: EventLog, stream: str) -> None:
    log.append(stream, ANY, [new("a"), new("b")])
    listening = Listening(log.subscribe(stream, 0))
    assert listening.next().data == b"b"
    log.append(stream, ANY, [new("c")])
    event = listening.next()
    assert (event.revision, event.data) == (2, b"c")
    listening.stop()


def test_a_subscription_to_a_missing_stream_waits_for_it(log: EventLog, stream: str) -> None:
    listening = Listening(log.subscribe(stream))
    log.append(stream, ANY, [new("a")])
    assert listening.next().revision == 0
    listening.stop()


def test_a_prefix_brings_its_streams_in_order_and_goes_on_after_a_position(
    log: EventLog, stream: str
) -> None:
    prefix = f"{stream}."
    listening = Listening(log.subscribe_prefix(prefix))
    for name, text in (("x", "1"), ("y", "2"), ("x", "3")):
        log.append(f"{prefix}{name}", ANY, [new(text)])
        log.append(f"other-{stream}", ANY, [new("none of it")])
    events = [listening.next_of(prefix) for _ in range(3)]
    assert [(event.stream, event.revision, event.data) for event in events] == [
        (f"{prefix}x", 0, b"1"),
        (f"{prefix}y", 0, b"2"),
        (f"{prefix}x", 1, b"3"),
    ]
    listening.stop()
    again = Listening(log.subscribe_prefix(prefix, events[0].position))
    assert again.next_of(prefix).data == b"2"
    again.stop()


def test_a_group_has_one_place_and_brings_again_what_was_not_acknowledged(log: EventLog, stream: str) -> None:
    log.append(stream, ANY, [new("a"), new("b")])
    place = log.join_group(stream, "group")
    assert place is not None
    assert log.join_group(stream, "group") is None
    listening = Listening(place)
    events = [listening.next(), listening.next()]
    assert [event.data for event in events] == [b"a", b"b"]
    listening.stop()
    again = None
    while again is None:
        again = log.join_group(stream, "group")
    listening = Listening(again)
    first = listening.next()
    assert first.data == b"a"
    again.ack(first)
    listening.stop()


def test_truncated_events_are_not_read(log: EventLog, stream: str) -> None:
    log.append(stream, ANY, [new("a"), new("b"), new("c")])
    log.truncate(stream, 2)
    log.truncate(stream, 1)
    assert texts(log.read(stream)) == ["c"]
    assert log.last_revision(stream) == 2
