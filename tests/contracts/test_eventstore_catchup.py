"""Catch-up subscriptions to a stream and to $all."""

from __future__ import annotations

from typing import Any

import pytest

from kt_es.eventstore.driver import EventStoreDBClient, NewEvent, RecordedEvent, StreamIsDeleted, StreamState
from tests.contracts.nodes import Reader, append, event, events, numbers, positions

NO_STREAM = StreamState.NO_STREAM
LAST = 2**63 - 1


def test_a_subscription_catches_up_and_stays_live(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 300)
    with Reader(esdb.subscribe_to_stream(name)) as reader:
        assert positions(reader.take(300)) == list(range(300))
        append(esdb, name, 3, 299)
        append(esdb, name, 300, 302)
        assert positions(reader.take(303)) == list(range(300, 603))


def test_a_subscription_starts_behind_its_position(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 5)
    with Reader(esdb.subscribe_to_stream(name, stream_position=2)) as reader:
        assert positions(reader.take(2)) == [3, 4]


def test_a_subscription_from_the_end_gets_what_comes(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 5)
    with Reader(esdb.subscribe_to_stream(name, from_end=True)) as reader:
        append(esdb, name, 2, 4)
        assert positions(reader.take(2)) == [5, 6]


def test_the_stream_may_come_later(esdb: EventStoreDBClient, name: str) -> None:
    with Reader(esdb.subscribe_to_stream(name)) as reader:
        append(esdb, name, 2)
        assert positions(reader.take(2)) == [0, 1]


MISSING = pytest.param(
    0, marks=pytest.mark.node_only("24.6.0 says it of a missing stream, too, 23.10 does not")
)


@pytest.mark.parametrize("count", [MISSING, 3])
def test_it_reports_once_that_it_has_caught_up(esdb: EventStoreDBClient, name: str, count: int) -> None:
    if count:
        append(esdb, name, count)
    with Reader(esdb.subscribe_to_stream(name, include_caught_up=True)) as reader:
        before = reader.take(count)
        assert reader.one().is_caught_up
        append(esdb, name, 2, count - 1 if count else NO_STREAM)
        after = reader.take(2)
    assert positions(before + after) == list(range(count + 2))
    assert not any(one.is_caught_up for one in before + after)


def test_many_subscribers_get_the_same(esdb: EventStoreDBClient, name: str) -> None:
    readers = [Reader(esdb.subscribe_to_stream(name)) for _ in range(10)]
    append(esdb, name, 50)
    assert [positions(reader.take(50)) for reader in readers] == [list(range(50))] * 10
    for reader in readers:
        reader.stop()


def test_truncated_events_are_not_delivered(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 6)
    esdb.set_stream_metadata(name, metadata={"$tb": 4})
    with Reader(esdb.subscribe_to_stream(name)) as reader:
        assert positions(reader.take(2)) == [4, 5]


def test_a_subscription_outlives_a_deletion(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 2)
    with Reader(esdb.subscribe_to_stream(name)) as reader:
        assert positions(reader.take(2)) == [0, 1]
        esdb.delete_stream(name, current_version=1)
        append(esdb, name, 2, 1)
        assert positions(reader.take(2)) == [2, 3]


def test_a_tombstone_is_the_last_event(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 1)
    with Reader(esdb.subscribe_to_stream(name)) as reader:
        reader.one()
        esdb.tombstone_stream(name, current_version=0)
        assert reader.one().stream_position == LAST
        assert reader.ends() == "StreamIsDeleted"
    with pytest.raises(StreamIsDeleted):
        list(esdb.read_stream(name))


def test_an_empty_list_of_what_to_leave_out_leaves_nothing_out(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 1)
    start = esdb.get_stream(name)[0].commit_position
    esdb.set_stream_metadata(name, metadata={"note": "x"})
    with Reader(esdb.subscribe_to_all(commit_position=start, filter_exclude=[])) as reader:
        while (one := reader.one()).stream_name != f"$${name}":
            pass
    assert one.type == "$metadata"


def test_all_is_followed_from_a_position(esdb: EventStoreDBClient, name: str) -> None:
    start = esdb.append_to_stream(name + "-0", current_version=NO_STREAM, events=events(3))
    with Reader(esdb.subscribe_to_all(commit_position=start)) as reader:
        append(esdb, name + "-a", 2)
        append(esdb, name + "-b", 2)
        got: list[RecordedEvent] = []
        while len(got) < 4:
            one = reader.one()
            assert (one.commit_position or 0) > start
            if one.stream_name.startswith(name):
                got.append(one)
    assert [(one.stream_name[-1], one.stream_position) for one in got] == [
        ("a", 0),
        ("a", 1),
        ("b", 0),
        ("b", 1),
    ]


def test_all_is_followed_with_a_filter(esdb: EventStoreDBClient, name: str) -> None:
    start = esdb.get_commit_position()
    append(esdb, name + "-unwanted", 5)
    append(esdb, name + "-wanted", 2)
    filtered = esdb.subscribe_to_all(
        commit_position=start, filter_include=(f"{name}-wanted",), filter_by_stream_name=True
    )
    with Reader(filtered) as reader:
        assert numbers(reader.take(2)) == [0, 1]
        append(esdb, name + "-unwanted", 5, 4)
        append(esdb, name + "-wanted", 1, 1)
        assert numbers(reader.take(1)) == [2]


def test_checkpoints_come_while_nothing_passes_the_filter(esdb: EventStoreDBClient, name: str) -> None:
    start = esdb.get_commit_position()
    subscription = esdb.subscribe_to_all(
        commit_position=start,
        filter_include=(f"{name}-wanted",),
        filter_by_stream_name=True,
        include_checkpoints=True,
        window_size=10,
        checkpoint_interval_multiplier=1,
    )
    with Reader(subscription) as reader:
        append(esdb, name + "-unwanted", 60)
        append(esdb, name + "-wanted", 1)
        came = [reader.one()]
        while came[-1].is_checkpoint:
            came.append(reader.one())
    checkpoints = [one.commit_position for one in came[:-1]]
    assert len(checkpoints) >= 5
    assert checkpoints == sorted(set(checkpoints))
    assert came[-1].data == b"0"
    assert checkpoints[-1] < came[-1].commit_position


def test_a_subscription_that_is_stopped_ends(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 1)
    reader = Reader(esdb.subscribe_to_stream(name))
    reader.one()
    reader.stop()
    assert reader.failure is None
    esdb.append_to_stream(name, current_version=0, events=event(1))
    assert reader.waiting == 1  # the end


def test_all_is_followed_from_its_end(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name + "-before", 2)
    ours: dict[str, Any] = {"filter_include": (f"{name}-.*",), "filter_by_stream_name": True}
    subscription = esdb.subscribe_to_all(from_end=True, include_caught_up=True, **ours)
    with Reader(subscription) as reader:
        assert reader.one().is_caught_up
        append(esdb, name + "-after", 2)
        assert [one.stream_name for one in reader.take(2)] == [name + "-after"] * 2


def test_links_are_resolved_while_following(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 2)
    with Reader(esdb.subscribe_to_stream(name + "-links", resolve_links=True)) as reader:
        made = [
            NewEvent(type="$>", data=f"{at}@{name}".encode(), content_type="application/octet-stream")
            for at in (1, 0)
        ]
        esdb.append_to_stream(name + "-links", current_version=NO_STREAM, events=made)
        came = reader.take(2)
    assert numbers(came) == [1, 0]
    assert [one.link.id for one in came] == [one.id for one in made]


def test_what_is_excluded_does_not_come(esdb: EventStoreDBClient, name: str) -> None:
    start = esdb.append_to_stream(name, current_version=NO_STREAM, events=event(0, "Wanted"))
    subscription = esdb.subscribe_to_all(
        commit_position=start, filter_exclude=(r"\$.+", "Unwanted"), include_checkpoints=True
    )
    with Reader(subscription) as reader:
        esdb.append_to_stream(name, current_version=0, events=[event(1, "Unwanted"), event(2, "Wanted")])
        came = [reader.one()]
        while came[-1].is_checkpoint or came[-1].stream_name != name:
            came.append(reader.one())
    assert came[-1].stream_position == 2
