"""Persistent subscriptions to $all: filters, places, their administration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kt_es.eventstore.driver import (
    AlreadyExists,
    EventStoreDBClient,
    MaximumSubscriptionsReached,
    NotFound,
    StreamState,
)
from tests.contracts.nodes import Reader, append, event, numbers, raised, until

NO_STREAM = StreamState.NO_STREAM
GONE = 2**63 - 1


@pytest.fixture
def group(esdb: EventStoreDBClient, name: str) -> Iterator[Any]:
    """Creates the group ``name`` to $all, which sees streams of this test only."""
    made: list[str] = []

    def create(group_name: str = name, **how: Any) -> str:
        filters: dict[str, Any] = {"filter_include": (f"{name}-.*",), "filter_by_stream_name": True}
        esdb.create_subscription_to_all(group_name, **(filters | how))
        made.append(group_name)
        return group_name

    yield create
    for one in made:
        raised(esdb.delete_subscription, one)


def read(esdb: EventStoreDBClient, name: str, *, ack: bool = True, **how: Any) -> Reader:
    return Reader(esdb.read_subscription_to_all(name, **how), ack=ack)


def settled(esdb: EventStoreDBClient, name: str) -> None:
    until(lambda: not esdb.get_subscription_info(name).total_in_flight_messages)


def places(recorded: list[Any]) -> list[tuple[str, int]]:
    return [(one.stream_name[-1], one.stream_position) for one in recorded]


def test_it_begins_at_a_position(esdb: EventStoreDBClient, name: str, group: Any) -> None:
    append(esdb, name + "-a", 3)
    second = esdb.get_stream(name + "-a")[1].commit_position
    group(commit_position=second)
    with read(esdb, name) as reader:
        assert places(reader.take(2)) == [("a", 1), ("a", 2)]


def test_it_begins_at_the_start(esdb: EventStoreDBClient, name: str, group: Any) -> None:
    append(esdb, name + "-a", 2)
    group()
    with read(esdb, name) as reader:
        append(esdb, name + "-b", 1)
        assert places(reader.take(3)) == [("a", 0), ("a", 1), ("b", 0)]


FILTERS: list[tuple[dict[str, Any], list[int]]] = [
    ({"filter_include": ("{n}A",), "filter_by_stream_name": False}, [0, 2]),
    ({"filter_include": ("{n}[AC]",), "filter_by_stream_name": False}, [0, 2, 3]),
    ({"filter_include": ("{n}-b",)}, [2, 3]),
    ({"filter_include": (), "filter_exclude": ("(?!{n}).*", "{n}-a")}, [2, 3]),
]


@pytest.mark.parametrize(("how", "expected"), FILTERS)
def test_it_filters_by_type_and_by_stream(
    esdb: EventStoreDBClient, name: str, group: Any, how: dict[str, Any], expected: list[int]
) -> None:
    start = esdb.get_commit_position()
    for part in ("filter_include", "filter_exclude"):
        if part in how:
            how = how | {part: tuple(text.replace("{n}", name) for text in how[part])}
    group(commit_position=start, **how)
    for stream, letters, first in (("-a", "AB", 0), ("-b", "AC", 2)):
        batch = [event(first + at, name + letter) for at, letter in enumerate(letters)]
        esdb.append_to_stream(name + stream, current_version=NO_STREAM, events=batch)
    with read(esdb, name) as reader:
        assert numbers(reader.take(len(expected))) == expected


def test_it_gets_on_while_nothing_passes(esdb: EventStoreDBClient, name: str, group: Any) -> None:
    group(
        from_end=True,
        window_size=1,
        checkpoint_interval_multiplier=1,
        checkpoint_after=0.1,
        read_batch_size=1,
    )
    before = esdb.get_subscription_info(name).last_checkpointed_event_position
    with read(esdb, name):
        append(esdb, "other-" + name, 20)
        until(lambda: esdb.get_subscription_info(name).last_checkpointed_event_position != before)
    assert esdb.get_subscription_info(name).last_known_event_position == ""


def position(text: str) -> int:
    commit, _, _ = text.removeprefix("C:").partition("/")
    return int(commit)


def test_positions_are_delivered(esdb: EventStoreDBClient, name: str, group: Any) -> None:
    append(esdb, name + "-a", 2)
    commits = [one.commit_position or 0 for one in esdb.get_stream(name + "-a")]
    group(commit_position=commits[0], min_checkpoint_count=1, max_checkpoint_count=1)
    info = esdb.get_subscription_info(name)
    assert (info.event_source, info.group_name) == ("$all", name)
    assert info.start_from == f"C:{commits[0]}/P:{commits[0]}"
    with read(esdb, name) as reader:
        reader.take(2)
        until(lambda: esdb.get_subscription_info(name).last_checkpointed_event_position)
        settled(esdb, name)
    info = esdb.get_subscription_info(name)
    assert commits[0] <= position(info.last_checkpointed_event_position)
    assert commits[1] <= position(info.last_known_event_position)


def test_an_update_keeps_filter_and_place(esdb: EventStoreDBClient, name: str, group: Any) -> None:
    append(esdb, name + "-a", 2)
    group(max_retry_count=3, min_checkpoint_count=1, max_checkpoint_count=1)
    with read(esdb, name) as reader:
        reader.take(2)
        settled(esdb, name)
    esdb.update_subscription_to_all(name, message_timeout=7.5, consumer_strategy="RoundRobin")
    info = esdb.get_subscription_info(name)
    assert (info.message_timeout, info.max_retry_count) == (7.5, 3)
    assert (info.consumer_strategy, info.start_from) == ("RoundRobin", "C:0/P:0")
    append(esdb, "other-" + name, 2)
    append(esdb, name + "-b", 1)
    with read(esdb, name) as reader:
        assert places(reader.take(1)) == [("b", 0)]


def test_another_start_does_not_move_a_group_that_has_got_on(
    esdb: EventStoreDBClient, name: str, group: Any
) -> None:
    append(esdb, name + "-a", 3)
    group(min_checkpoint_count=1, max_checkpoint_count=1)
    with read(esdb, name, ack=False) as reader:
        first, _, _ = reader.take(3)
        reader.subscription.ack(first)
        until(lambda: esdb.get_subscription_info(name).last_checkpointed_event_position)
    esdb.update_subscription_to_all(name, from_end=True)
    append(esdb, name + "-b", 1)
    with read(esdb, name) as reader:
        assert places(reader.take(3)) == [("a", 1), ("a", 2), ("b", 0)]


def test_parked_messages_are_replayed(esdb: EventStoreDBClient, name: str, group: Any) -> None:
    append(esdb, name + "-a", 3)
    group()
    with read(esdb, name, ack=False) as reader:
        for one in reader.take(3):
            reader.subscription.nack(one, "park")
        until(lambda: esdb.get_subscription_info(name).parked_message_count == 3)
        esdb.replay_parked_events(name)
        again = reader.take(3)
        assert places(again) == [("a", 0), ("a", 1), ("a", 2)]
        for one in again:
            reader.subscription.ack(one)
        until(lambda: esdb.get_subscription_info(name).parked_message_count == 0)


def test_links_are_resolved(esdb: EventStoreDBClient, name: str, group: Any) -> None:
    append(esdb, "other-" + name, 2)
    link = event(0, "$>")
    link = type(link)(type="$>", data=f"1@other-{name}".encode(), content_type="application/octet-stream")
    esdb.append_to_stream(name + "-links", current_version=NO_STREAM, events=link)
    group(resolve_links=True)
    with read(esdb, name) as reader:
        one = reader.one()
        assert (one.stream_name, one.stream_position) == ("other-" + name, 1)
        assert one.link is not None
        assert (one.link.stream_name, one.link.id) == (name + "-links", link.id)
        settled(esdb, name)


def test_a_group_that_has_all_consumers_is_full(esdb: EventStoreDBClient, name: str, group: Any) -> None:
    group(max_subscriber_count=1)
    with read(esdb, name), pytest.raises(MaximumSubscriptionsReached):
        esdb.read_subscription_to_all(name)


def test_groups_are_made_listed_and_deleted(esdb: EventStoreDBClient, name: str, group: Any) -> None:
    group()
    with pytest.raises(AlreadyExists):
        group()
    assert name in [info.group_name for info in esdb.list_subscriptions_to_stream("$all")]
    assert (name, "$all") in [(info.group_name, info.event_source) for info in esdb.list_subscriptions()]
    esdb.delete_subscription(name)
    for call in (
        esdb.read_subscription_to_all,
        esdb.get_subscription_info,
        esdb.update_subscription_to_all,
        esdb.delete_subscription,
        esdb.replay_parked_events,
    ):
        with pytest.raises(NotFound):
            call(name)
