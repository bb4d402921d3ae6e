"""Metadata, truncation, deletion, tombstones."""

from __future__ import annotations

from typing import Any

import pytest

from kt_es.eventstore.driver import (
    EventStoreDBClient,
    FailedPrecondition,
    NotFound,
    StreamIsDeleted,
    StreamState,
    WrongCurrentVersion,
)
from tests.contracts.nodes import append, event, events, numbers, positions, raised

NO_STREAM, ANY, EXISTS = StreamState.NO_STREAM, StreamState.ANY, StreamState.EXISTS


def test_metadata_has_versions_of_its_own(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 1)
    assert esdb.get_stream_metadata(name) == ({}, NO_STREAM)
    esdb.set_stream_metadata(name, metadata={"note": "x"}, current_version=NO_STREAM)
    assert esdb.get_stream_metadata(name) == ({"note": "x"}, 0)
    with pytest.raises(WrongCurrentVersion):
        esdb.set_stream_metadata(name, metadata={}, current_version=7)
    esdb.set_stream_metadata(name, metadata={}, current_version=0)
    assert esdb.get_stream_metadata(name) == ({}, 1)


LIMITS = [
    ({"$maxCount": 2}, [4, 5]),
    ({"$maxCount": 99}, [0, 1, 2, 3, 4, 5]),
    ({"$tb": 4}, [4, 5]),
    ({"$tb": 2, "$maxCount": 3}, [3, 4, 5]),
    ({"$tb": 6}, []),
    ({"$maxAge": 100_000}, [0, 1, 2, 3, 4, 5]),
]


@pytest.mark.parametrize(("metadata", "kept"), LIMITS)
def test_metadata_limits_what_is_read(
    esdb: EventStoreDBClient, name: str, metadata: dict[str, Any], kept: list[int]
) -> None:
    append(esdb, name, 6)
    esdb.set_stream_metadata(name, metadata=metadata)
    assert positions(esdb.read_stream(name)) == kept
    assert positions(esdb.read_stream(name, stream_position=0)) == kept
    assert positions(esdb.read_stream(name, backwards=True)) == kept[::-1]
    assert positions(esdb.read_stream(name, stream_position=3, limit=1)) == [at for at in kept if at >= 3][:1]


def test_numbering_goes_on_behind_a_truncation(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 6)
    esdb.set_stream_metadata(name, metadata={"$tb": 4})
    append(esdb, name, 1, 5)
    assert numbers(esdb.get_stream(name)) == [4, 5, 6]
    esdb.set_stream_metadata(name, metadata={"$tb": 2})
    assert numbers(esdb.get_stream(name)) == [2, 3, 4, 5, 6]


def test_metadata_may_come_before_the_stream(esdb: EventStoreDBClient, name: str) -> None:
    esdb.set_stream_metadata(name, metadata={"$maxCount": 1}, current_version=NO_STREAM)
    assert esdb.get_current_version(name) is NO_STREAM
    append(esdb, name, 3)
    assert positions(esdb.get_stream(name)) == [2]


@pytest.mark.parametrize("again", [NO_STREAM, ANY, 2])
def test_a_deleted_stream_is_gone_and_may_be_written_again(
    esdb: EventStoreDBClient, name: str, again: Any
) -> None:
    append(esdb, name, 3)
    esdb.delete_stream(name, current_version=2)
    with pytest.raises(NotFound):
        esdb.get_stream(name)
    assert esdb.get_current_version(name) is NO_STREAM
    esdb.append_to_stream(name, current_version=again, events=events(2, 3))
    assert positions(esdb.get_stream(name)) == [3, 4]
    assert numbers(esdb.get_stream(name)) == [3, 4]


def test_a_repeated_append_to_a_deleted_stream_is_recognised(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 3)
    esdb.delete_stream(name, current_version=2)
    batch = events(2, 3)
    first = esdb.append_to_stream(name, current_version=ANY, events=batch)
    assert esdb.append_to_stream(name, current_version=ANY, events=batch) == first
    assert positions(esdb.get_stream(name)) == [3, 4]


def test_deletion_keeps_other_metadata(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 2)
    esdb.set_stream_metadata(name, metadata={"note": "x"})
    esdb.delete_stream(name, current_version=ANY)
    append(esdb, name, 1, 1)
    assert esdb.get_stream_metadata(name)[0]["note"] == "x"


def test_deleting_asks_for_the_right_revision(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 2)
    with pytest.raises(WrongCurrentVersion):
        esdb.delete_stream(name, current_version=0)
    assert len(esdb.get_stream(name)) == 2


def test_a_missing_stream_cannot_be_deleted(esdb: EventStoreDBClient, name: str) -> None:
    for expected in (ANY, EXISTS):
        with pytest.raises(NotFound):
            esdb.delete_stream(name, current_version=expected)


def test_deleting_twice_changes_nothing(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 2)
    esdb.delete_stream(name, current_version=1)
    esdb.delete_stream(name, current_version=1)
    esdb.delete_stream(name, current_version=ANY)
    with pytest.raises(StreamIsDeleted):
        esdb.delete_stream(name, current_version=EXISTS)


def test_a_tombstoned_stream_stays_deleted(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 3)
    esdb.tombstone_stream(name, current_version=2)
    with pytest.raises(StreamIsDeleted):
        esdb.get_stream(name)
    # One event goes through another call with the synchronous client than with that of asyncio.
    with pytest.raises((FailedPrecondition, StreamIsDeleted)):
        esdb.append_to_stream(name, current_version=ANY, events=event(3))
    with pytest.raises(StreamIsDeleted):
        esdb.append_to_stream(name, current_version=ANY, events=events(2, 3))
    with pytest.raises(StreamIsDeleted):
        esdb.tombstone_stream(name, current_version=ANY)


def test_a_tombstone_asks_for_the_right_revision(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 3)
    assert raised(esdb.tombstone_stream, name, current_version=1) == "WrongCurrentVersion"
    assert raised(esdb.tombstone_stream, name + "-missing", current_version=EXISTS) == "NotFound"
    esdb.tombstone_stream(name + "-missing", current_version=ANY)


DELETIONS = [
    (0, ANY, "", ""),
    (0, NO_STREAM, "WrongCurrentVersion", "WrongCurrentVersion"),
    (0, EXISTS, "", ""),
    (0, 2, "", ""),
    (0, 1, "WrongCurrentVersion", "WrongCurrentVersion"),
    (0, 9, "WrongCurrentVersion", "WrongCurrentVersion"),
    (None, ANY, "NotFound", ""),
    (None, EXISTS, "NotFound", "NotFound"),
    (None, 0, "NotFound", "NotFound"),
]


@pytest.mark.parametrize(("there", "expected", "soft", "hard"), DELETIONS)
def test_deletions_ask_for_what_they_expect(
    esdb: EventStoreDBClient, name: str, there: int | None, expected: Any, soft: str, hard: str
) -> None:
    for kind, call, outcome in (("s", esdb.delete_stream, soft), ("h", esdb.tombstone_stream, hard)):
        stream = f"{name}-{kind}"
        if there is not None:
            append(esdb, stream, 3)
        assert raised(call, stream, current_version=expected) == outcome
        if outcome and there is not None:
            assert esdb.get_current_version(stream) == 2


def test_metadata_names_what_it_expects(esdb: EventStoreDBClient, name: str) -> None:
    wrong = "WrongCurrentVersion"
    assert raised(esdb.set_stream_metadata, name, metadata={}, current_version=EXISTS) == wrong
    esdb.set_stream_metadata(name, metadata={"a": 1}, current_version=ANY)
    assert raised(esdb.set_stream_metadata, name, metadata={}, current_version=NO_STREAM) == wrong
    esdb.set_stream_metadata(name, metadata={"a": [1, {"b": None}]}, current_version=EXISTS)
    assert esdb.get_stream_metadata(name) == ({"a": [1, {"b": None}]}, 1)
