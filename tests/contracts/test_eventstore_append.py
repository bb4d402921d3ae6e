"""Appending: expected revisions, repetition by event id, limits, what comes back."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import pytest

from kt_es.eventstore.driver import (
    EventStoreDBClient,
    GrpcError,
    MaximumAppendSizeExceededError,
    NewEvent,
    StreamState,
    WrongCurrentVersion,
)
from tests.contracts.nodes import append, event, events, numbers, positions, raised

NO_STREAM, ANY, EXISTS = StreamState.NO_STREAM, StreamState.ANY, StreamState.EXISTS


def one_or_many(kind: str, start: int = 0) -> Any:
    """One event goes through ``Append``, a list through ``BatchAppend``."""
    return event(start) if kind == "one" else events(2, start)


both = pytest.mark.parametrize("kind", ["one", "many"])


@both
def test_a_new_stream_begins_at_revision_0(esdb: EventStoreDBClient, name: str, kind: str) -> None:
    esdb.append_to_stream(name, current_version=NO_STREAM, events=one_or_many(kind))
    got = esdb.get_stream(name)
    assert positions(got) == list(range(len(got)))
    assert numbers(got) == list(range(len(got)))


@both
def test_exact_revisions_chain(esdb: EventStoreDBClient, name: str, kind: str) -> None:
    append(esdb, name, 3)
    esdb.append_to_stream(name, current_version=2, events=one_or_many(kind, 3))
    assert numbers(esdb.get_stream(name)) == list(range(4 if kind == "one" else 5))


@both
@pytest.mark.parametrize("expected", [NO_STREAM, 0, 1, 3, 99])
def test_another_revision_than_the_last_is_refused(
    esdb: EventStoreDBClient, name: str, kind: str, expected: Any
) -> None:
    append(esdb, name, 3)
    with pytest.raises(WrongCurrentVersion):
        esdb.append_to_stream(name, current_version=expected, events=one_or_many(kind, 9))
    assert esdb.get_current_version(name) == 2


@both
@pytest.mark.parametrize("expected", [0, 5, EXISTS])
def test_a_missing_stream_is_not_at_a_revision(
    esdb: EventStoreDBClient, name: str, kind: str, expected: Any
) -> None:
    with pytest.raises(WrongCurrentVersion, match="does not exist"):
        esdb.append_to_stream(name, current_version=expected, events=one_or_many(kind))
    assert esdb.get_current_version(name) is NO_STREAM


@both
@pytest.mark.parametrize("expected", [ANY, EXISTS])
def test_without_a_revision_an_existing_stream_grows(
    esdb: EventStoreDBClient, name: str, kind: str, expected: StreamState
) -> None:
    append(esdb, name, 1)
    esdb.append_to_stream(name, current_version=expected, events=one_or_many(kind, 1))
    assert numbers(esdb.get_stream(name))[:2] == [0, 1]


@pytest.mark.parametrize("expected", [NO_STREAM, ANY])
@both
def test_a_repeated_append_is_answered_like_the_first(
    esdb: EventStoreDBClient, name: str, kind: str, expected: StreamState
) -> None:
    what = one_or_many(kind)
    first = esdb.append_to_stream(name, current_version=expected, events=what)
    assert esdb.append_to_stream(name, current_version=expected, events=what) == first
    assert len(esdb.get_stream(name)) == (1 if kind == "one" else 2)


def test_a_repeated_append_behind_others_is_recognised(esdb: EventStoreDBClient, name: str) -> None:
    batch = events(2, 1)
    append(esdb, name, 1)
    first = esdb.append_to_stream(name, current_version=0, events=batch)
    append(esdb, name, 4, 2)
    assert esdb.append_to_stream(name, current_version=0, events=batch) == first
    assert esdb.get_current_version(name) == 6


def test_any_recognises_events_that_others_have_followed(esdb: EventStoreDBClient, name: str) -> None:
    batch = events(3)
    esdb.append_to_stream(name, current_version=ANY, events=batch)
    esdb.append_to_stream(name, current_version=ANY, events=events(3, 3))
    esdb.append_to_stream(name, current_version=ANY, events=batch)
    assert numbers(esdb.get_stream(name)) == [0, 1, 2, 3, 4, 5]


def test_parts_of_an_append_at_their_place_are_repetitions(esdb: EventStoreDBClient, name: str) -> None:
    batch = events(4)
    esdb.append_to_stream(name, current_version=NO_STREAM, events=batch)
    esdb.append_to_stream(name, current_version=NO_STREAM, events=batch[:2])
    esdb.append_to_stream(name, current_version=1, events=batch[2:])
    assert esdb.get_current_version(name) == 3


def test_what_only_partly_repeats_is_refused(esdb: EventStoreDBClient, name: str) -> None:
    batch = events(4)
    esdb.append_to_stream(name, current_version=NO_STREAM, events=batch)
    for other in (batch + events(1, 9), batch[::-1]):
        assert (
            raised(esdb.append_to_stream, name, current_version=NO_STREAM, events=other)
            == "WrongCurrentVersion"
        )
    assert esdb.get_current_version(name) == 3


def test_the_same_id_in_another_stream_is_another_event(esdb: EventStoreDBClient, name: str) -> None:
    one = event()
    esdb.append_to_stream(name + "-a", current_version=ANY, events=one)
    esdb.append_to_stream(name + "-b", current_version=ANY, events=one)
    assert len(esdb.get_stream(name + "-b")) == 1


def test_an_append_of_nothing_makes_no_stream(esdb: EventStoreDBClient, name: str) -> None:
    esdb.append_to_stream(name, current_version=ANY, events=[])
    assert esdb.get_current_version(name) is NO_STREAM


def large(size: int) -> NewEvent:
    return NewEvent(type="T", data=b"x" * size, content_type="application/octet-stream")


def test_one_append_carries_at_most_a_mebibyte(esdb: EventStoreDBClient, name: str) -> None:
    too_much = 1024 * 1024 + 1
    # One event goes through another call with the synchronous client than with that of asyncio.
    with pytest.raises((GrpcError, MaximumAppendSizeExceededError)):
        esdb.append_to_stream(name, current_version=ANY, events=large(too_much))
    for batch in ([large(too_much)], [large(600 * 1024), large(600 * 1024)]):
        with pytest.raises(MaximumAppendSizeExceededError):
            esdb.append_to_stream(name, current_version=ANY, events=batch)
    esdb.append_to_stream(name, current_version=NO_STREAM, events=large(1000 * 1024))
    assert len(esdb.get_stream(name)[0].data) == 1000 * 1024


@both
def test_what_was_appended_comes_back(esdb: EventStoreDBClient, name: str, kind: str) -> None:
    new = NewEvent(
        type="Some.Type ü",
        data=bytes(range(256)),
        metadata=b'{"$correlationId": "x"}',
        content_type="application/octet-stream",
        id=uuid.uuid4(),
    )
    esdb.append_to_stream(name, current_version=NO_STREAM, events=new if kind == "one" else [new])
    (got,) = esdb.get_stream(name)
    assert (got.id, got.type, got.data, got.metadata) == (new.id, new.type, new.data, new.metadata)
    assert (got.content_type, got.stream_name, got.stream_position) == (new.content_type, name, 0)
    assert got.recorded_at is not None
    assert got.link is None
    assert got.retry_count is None


def test_streams_may_have_any_name(esdb: EventStoreDBClient, name: str) -> None:
    odd = f"{name}/ü €-$x@y%"
    append(esdb, odd, 2)
    assert numbers(esdb.get_stream(odd)) == [0, 1]


@both
@pytest.mark.node_only("a server without TLS takes it")
def test_all_is_not_a_stream(esdb: EventStoreDBClient, kind: str) -> None:
    assert raised(esdb.append_to_stream, "$all", current_version=ANY, events=one_or_many(kind))


@both
def test_stream_and_type_have_names(esdb: EventStoreDBClient, name: str, kind: str) -> None:
    append(esdb, name, 1)
    nameless = event(1, "") if kind == "one" else [event(1), event(2, "")]
    for call in (
        lambda: esdb.append_to_stream(name, current_version=0, events=nameless),
        lambda: esdb.append_to_stream("", current_version=ANY, events=one_or_many(kind)),
    ):
        # A batch is refused alone, its call goes on; asyncio's client has no other appends.
        assert raised(call) in {"ExceptionThrownByHandler", "BadRequestError"}
    assert esdb.get_current_version(name) == 0


def test_a_stream_without_a_name_is_none(esdb: EventStoreDBClient) -> None:
    for call in (esdb.get_stream, esdb.subscribe_to_stream):
        assert raised(call, "") == "ExceptionThrownByHandler"
    for delete in (esdb.delete_stream, esdb.tombstone_stream):
        assert raised(delete, "", current_version=ANY) == "ExceptionThrownByHandler"


@pytest.mark.node_only("servers take longer ones")
def test_names_have_at_most_4096_characters(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 1)
    assert raised(esdb.append_to_stream, name, current_version=0, events=event(1, "x" * 4097))
    assert raised(esdb.append_to_stream, "x" * 4097, current_version=ANY, events=event(1))
    assert esdb.get_current_version(name) == 0


def test_of_racing_writers_exactly_one_wins(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 1)
    outcomes: list[str] = []

    def write() -> None:
        outcomes.append(raised(esdb.append_to_stream, name, current_version=0, events=events(2, 1)))

    threads = [threading.Thread(target=write) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [""] + ["WrongCurrentVersion"] * 11
    assert esdb.get_current_version(name) == 2


def test_concurrent_appends_to_any_revision_are_all_there(esdb: EventStoreDBClient, name: str) -> None:
    def write(start: int) -> None:
        for number in range(start, start + 10):
            esdb.append_to_stream(name, current_version=ANY, events=event(number))

    threads = [threading.Thread(target=write, args=(start,)) for start in range(0, 80, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    got = esdb.get_stream(name)
    assert sorted(numbers(got)) == list(range(80))
    assert positions(got) == list(range(80))
    commits = [one.commit_position or 0 for one in got]
    assert commits == sorted(set(commits))
