"""Metadata, truncation, deletion, tombstones."""

from __future__ import annotations

from typing import Any

import pytest

from kt_es.eventstore.driver import (
    EventStoreDBClient,
    FailedPrecondition,
    NewEvent,
    NotFound,
    StreamIsDeleted,
    StreamState,
    WrongCurrentVersion,
)
from tests.contracts.nodes import append, event, events, numbers, positions, raised

NO_STREAM, ANY, EXISTS = StreamState.NO_STREAM, StreamState.ANY, StreamState.EXISTS
LAST = 2**63 - 1


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
    # To keep nothing is no limit.
    ({"$maxCount": 0}, [0, 1, 2, 3, 4, 5]),
    ({"$maxAge": 0, "$tb": 4}, [4, 5]),
    ({"$maxCount": -1, "$tb": -1}, [0, 1, 2, 3, 4, 5]),
    # Where one field is of a wrong kind, none holds.
    ({"$maxCount": "2"}, [0, 1, 2, 3, 4, 5]),
    ({"$maxCount": "2", "$tb": 4}, [0, 1, 2, 3, 4, 5]),
    ({"$maxCount": 1.5, "$tb": 4}, [0, 1, 2, 3, 4, 5]),
    ({"$maxAge": "1 day", "$tb": 4}, [0, 1, 2, 3, 4, 5]),
    ({"$tb": True, "$maxCount": 2}, [0, 1, 2, 3, 4, 5]),
    ({"$cacheControl": "no", "$tb": 4}, [0, 1, 2, 3, 4, 5]),
    ({"$acl": {"$r": 7}, "$tb": 4}, [0, 1, 2, 3, 4, 5]),
    ({"note": {"$tb": "2"}, "$tb": 4}, [4, 5]),
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


def test_a_deletion_loses_all_other_metadata(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 2)
    esdb.set_stream_metadata(name, metadata={"note": "x", "$maxAge": 100_000, "$acl": {"$r": "x"}})
    esdb.delete_stream(name, current_version=ANY)
    assert esdb.get_stream_metadata(name) == ({"$tb": LAST}, 1)
    append(esdb, name, 1, 1)
    assert esdb.get_stream_metadata(name) == ({"$tb": 2}, 2)


def test_metadata_bring_a_deleted_stream_back_without_its_events(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 2)
    esdb.delete_stream(name, current_version=ANY)
    esdb.set_stream_metadata(name, metadata={"note": "x"})
    assert esdb.get_stream_metadata(name)[0] == {"note": "x", "$tb": 2}
    assert esdb.get_stream(name) == ()
    append(esdb, name, 1, 1)
    assert positions(esdb.get_stream(name)) == [2]
    assert esdb.get_stream_metadata(name)[0] == {"note": "x", "$tb": 2}
    # The events are hidden, not gone, until a scavenge.
    esdb.set_stream_metadata(name, metadata={})
    assert positions(esdb.get_stream(name)) == [0, 1, 2]


def test_of_metadata_the_last_is_read(esdb: EventStoreDBClient, name: str) -> None:
    for number in range(3):
        esdb.set_stream_metadata(name, metadata={"note": number})
    assert positions(esdb.get_stream(f"$${name}")) == [2]


def test_metadata_that_are_not_marked_as_json_do_not_hold(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 3)
    unmarked = NewEvent(type="$metadata", data=b'{"$tb": 2}', content_type="application/octet-stream")
    esdb.append_to_stream(f"$${name}", current_version=NO_STREAM, events=unmarked)
    assert positions(esdb.get_stream(name)) == [0, 1, 2]


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
    for call in (esdb.tombstone_stream, esdb.delete_stream):
        with pytest.raises(StreamIsDeleted):
            call(name, current_version=ANY)
    for read in (esdb.get_current_version, esdb.get_stream_metadata, esdb.subscribe_to_stream):
        assert raised(read, name) == "StreamIsDeleted"
    esdb.set_stream_metadata(name, metadata={"note": "x"})
    assert raised(esdb.get_stream_metadata, name) == "StreamIsDeleted"
    assert raised(esdb.subscribe_to_stream, f"$${name}") == "StreamIsDeleted"


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
