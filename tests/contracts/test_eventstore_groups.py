"""Persistent subscriptions: delivery, acknowledgement, redelivery, parking, their administration."""

from __future__ import annotations

from typing import Any

import pytest

from kt_es.eventstore.driver import (
    AlreadyExists,
    EventStoreDBClient,
    GrpcError,
    MaximumSubscriptionsReached,
    NotFound,
    StreamState,
)
from tests.contracts.nodes import Reader, append, event, positions, raised, read_group, until

NO_STREAM = StreamState.NO_STREAM


def group(esdb: EventStoreDBClient, name: str, **settings: Any) -> None:
    esdb.create_subscription_to_stream("g", name, **settings)


def parked(esdb: EventStoreDBClient, name: str) -> int:
    return esdb.get_subscription_info("g", name).parked_message_count


def test_defaults_are_described(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 3)
    group(esdb, name)
    info = esdb.get_subscription_info("g", name)
    assert (info.group_name, info.event_source, info.status) == ("g", name, "Live")
    assert (info.message_timeout, info.max_retry_count, info.max_subscriber_count) == (30.0, 10, 5)
    assert (info.min_checkpoint_count, info.max_checkpoint_count, info.checkpoint_after) == (10, 1000, 2.0)
    assert (info.live_buffer_size, info.history_buffer_size, info.read_batch_size) == (500, 500, 200)
    assert (info.consumer_strategy, info.start_from, info.resolve_links) == ("DispatchToSingle", "0", False)
    assert (info.extra_statistics, info.parked_message_count) == (False, 0)


SETTINGS: dict[str, Any] = {
    "max_subscriber_count": 1,
    "message_timeout": 120.0,
    "max_retry_count": 2147483647,
    "min_checkpoint_count": 1,
    "max_checkpoint_count": 500,
    "checkpoint_after": 1.0,
    "live_buffer_size": 2000,
    "history_buffer_size": 2000,
    "read_batch_size": 100,
}


def test_settings_are_kept_and_changed(esdb: EventStoreDBClient, name: str) -> None:
    group(esdb, name, stream_position=7, consumer_strategy="RoundRobin", **SETTINGS)
    info = esdb.get_subscription_info("g", name)
    assert {field: getattr(info, field) for field in SETTINGS} == SETTINGS
    assert (info.start_from, info.consumer_strategy) == ("7", "RoundRobin")
    esdb.update_subscription_to_stream("g", name, message_timeout=5.5, max_retry_count=3)
    info = esdb.get_subscription_info("g", name)
    changed = SETTINGS | {"message_timeout": 5.5, "max_retry_count": 3}
    assert {field: getattr(info, field) for field in SETTINGS} == changed


def test_groups_are_listed(esdb: EventStoreDBClient, name: str) -> None:
    assert list(esdb.list_subscriptions_to_stream(name)) == []
    for one in ("a", "b"):
        esdb.create_subscription_to_stream(one, name)
    assert sorted(info.group_name for info in esdb.list_subscriptions_to_stream(name)) == ["a", "b"]
    everywhere = [info.group_name for info in esdb.list_subscriptions() if info.event_source == name]
    assert sorted(everywhere) == ["a", "b"]
    esdb.delete_subscription("a", name)
    assert [info.group_name for info in esdb.list_subscriptions_to_stream(name)] == ["b"]


def test_a_group_exists_once(esdb: EventStoreDBClient, name: str) -> None:
    group(esdb, name)
    with pytest.raises(AlreadyExists):
        group(esdb, name)


def test_a_missing_group_is_not_found(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 1)
    for call in (
        esdb.read_subscription_to_stream,
        esdb.get_subscription_info,
        esdb.delete_subscription,
        esdb.replay_parked_events,
        esdb.update_subscription_to_stream,
    ):
        with pytest.raises(NotFound):
            call("none", name)


def test_events_are_delivered_once_acknowledged(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 5)
    group(esdb, name)
    with read_group(esdb, name, ack=True) as reader:
        came = reader.take(5)
        append(esdb, name, 3, 4)
        came += reader.take(3)
    assert positions(came) == list(range(8))
    assert {one.retry_count for one in came} == {0}
    until(lambda: not esdb.get_subscription_info("g", name).total_in_flight_messages)
    append(esdb, name, 1, 7)
    with read_group(esdb, name, ack=True) as reader:
        assert positions([reader.one()]) == [8]


def test_it_starts_at_the_given_position(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 5)
    group(esdb, name, stream_position=3)
    with read_group(esdb, name, ack=True) as reader:
        assert positions(reader.take(2)) == [3, 4]


def test_from_the_end_counts_from_its_creation(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 3)
    group(esdb, name, from_end=True)
    append(esdb, name, 2, 2)
    with read_group(esdb, name, ack=True) as reader:
        assert positions(reader.take(2)) == [3, 4]
    assert esdb.get_subscription_info("g", name).start_from == "-1"


def test_what_a_lost_consumer_had_comes_again_in_order(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 6)
    group(esdb, name, max_subscriber_count=1)
    first = read_group(esdb, name)
    came = first.take(6)
    for one in (came[0], came[3]):
        first.subscription.ack(one)
    until(lambda: esdb.get_subscription_info("g", name).total_in_flight_messages == 4)
    first.stop()
    with read_when_free(esdb, name) as second:
        again = second.take(4)
    assert positions(again) == [1, 2, 4, 5]
    assert [one.retry_count for one in again] == [1, 1, 1, 1]


def read_when_free(esdb: EventStoreDBClient, name: str) -> Reader:
    """The server notices within a moment that a consumer has gone."""
    subscriptions: list[Any] = []

    def admitted() -> bool:
        try:
            subscriptions.append(esdb.read_subscription_to_stream("g", name))
        except MaximumSubscriptionsReached:
            return False
        return True

    until(admitted)
    return Reader(subscriptions[0], ack=True)


def test_a_full_group_admits_nobody(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 2)
    group(esdb, name, max_subscriber_count=1)
    held = read_group(esdb, name)
    held.take(2)
    with pytest.raises(MaximumSubscriptionsReached):
        esdb.read_subscription_to_stream("g", name)
    held.stop()
    with read_when_free(esdb, name) as second:
        assert positions(second.take(2)) == [0, 1]


def test_no_more_is_in_flight_than_a_consumer_asks_for(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 10)
    group(esdb, name)
    with read_group(esdb, name, event_buffer_size=3) as reader:
        came = reader.take(3)
        assert esdb.get_subscription_info("g", name).total_in_flight_messages == 3
        assert reader.waiting == 0
        reader.subscription.ack(came[1])
        assert positions([reader.one()]) == [3]


def test_round_robin_shares_and_single_does_not(esdb: EventStoreDBClient, name: str) -> None:
    group(esdb, name, consumer_strategy="RoundRobin")
    with read_group(esdb, name) as one, read_group(esdb, name) as other:
        append(esdb, name, 10)
        assert sorted(positions(one.take(5) + other.take(5))) == list(range(10))
    single = name + "-single"
    esdb.create_subscription_to_stream("g", single, consumer_strategy="DispatchToSingle")
    with read_group(esdb, single) as one, read_group(esdb, single) as other:
        append(esdb, single, 10)
        until(lambda: one.waiting + other.waiting == 10)
        assert sorted([one.waiting, other.waiting]) == [0, 10]


def test_a_retried_message_is_parked_in_the_end(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 1)
    group(esdb, name, max_retry_count=2)
    with read_group(esdb, name) as reader:
        counts = []
        for _ in range(3):
            one = reader.one()
            counts.append(one.retry_count)
            reader.subscription.nack(one, "retry")
        until(lambda: parked(esdb, name) == 1)
        assert reader.waiting == 0
    assert counts == [0, 1, 2]


def test_a_skipped_message_is_done(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 2)
    group(esdb, name)
    with read_group(esdb, name) as reader:
        first, second = reader.take(2)
        reader.subscription.nack(first, "skip")
        reader.subscription.ack(second)
        until(lambda: not esdb.get_subscription_info("g", name).total_in_flight_messages)
    assert parked(esdb, name) == 0
    with read_group(esdb, name, ack=True) as reader:
        append(esdb, name, 1, 1)
        assert positions([reader.one()]) == [2]


def test_parked_messages_are_replayed(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 5)
    group(esdb, name)
    with read_group(esdb, name) as reader:
        for one in reader.take(5):
            if one.stream_position in (1, 3):
                reader.subscription.nack(one, "park")
            else:
                reader.subscription.ack(one)
        until(lambda: parked(esdb, name) == 2)
        esdb.replay_parked_events("g", name)
        again = reader.take(2)
        assert positions(again) == [1, 3]
        assert [one.data for one in again] == [b"1", b"3"]
        for one in again:
            assert one.link is not None
            reader.subscription.ack(one)
        until(lambda: parked(esdb, name) == 0)
        append(esdb, name, 1, 4)
        assert positions([reader.one()]) == [5]


def test_a_stop_does_not_end_the_consumer(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 2)
    group(esdb, name)
    with read_group(esdb, name, event_buffer_size=1) as reader:
        reader.subscription.nack(reader.one(), "stop")
        second = reader.one()
        reader.subscription.ack(second)
        append(esdb, name, 1, 1)
        assert positions([second, reader.one()]) == [1, 2]
        assert reader.waiting == 0
    assert parked(esdb, name) == 0


def test_what_is_not_acknowledged_in_time_comes_again(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 2)
    group(esdb, name, message_timeout=0.3)
    with read_group(esdb, name) as reader:
        came = reader.take(4)
    assert positions(came) == [0, 1, 0, 1]
    assert [one.retry_count for one in came] == [0, 0, 1, 1]


def test_a_deleted_group_ends_its_consumers(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 1)
    group(esdb, name)
    reader = read_group(esdb, name)
    reader.one()
    esdb.delete_subscription("g", name)
    assert reader.ends() == "GrpcError"
    assert isinstance(reader.failure, GrpcError)
    # The status as one library quotes it, the sentence that the other one makes of it.
    assert "CANCELLED" in str(reader.failure) or "was dropped" in str(reader.failure)
    with pytest.raises(NotFound):
        esdb.get_subscription_info("g", name)
    reader.stop()


def test_a_group_created_again_starts_afresh(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 2)
    for _ in range(2):
        group(esdb, name, min_checkpoint_count=1, max_checkpoint_count=1)
        with read_group(esdb, name, ack=True) as reader:
            assert positions(reader.take(2)) == [0, 1]
        esdb.delete_subscription("g", name)


def test_thousands_come_in_order(esdb: EventStoreDBClient, name: str) -> None:
    for start in range(0, 3000, 500):
        append(esdb, name, 500, start - 1 if start else NO_STREAM)
    group(esdb, name, **SETTINGS)
    with read_group(esdb, name, ack=True, event_buffer_size=200, max_ack_batch_size=100) as reader:
        assert positions(reader.take(3000)) == list(range(3000))


def test_all_has_groups_too(esdb: EventStoreDBClient, name: str) -> None:
    esdb.create_subscription_to_all(
        name, filter_include=(f"{name}-.*",), filter_by_stream_name=True, from_end=True
    )
    try:
        append(esdb, name + "-a", 2)
        append(esdb, "other-" + name, 2)
        append(esdb, name + "-b", 2)
        subscription = esdb.read_subscription_to_all(name)
        with Reader(subscription, ack=True) as reader:
            came = reader.take(4)
        assert [(one.stream_name[-1], one.stream_position) for one in came] == [
            ("a", 0),
            ("a", 1),
            ("b", 0),
            ("b", 1),
        ]
    finally:
        esdb.delete_subscription(name)


def test_the_ids_of_others_are_not_acknowledged(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 1)
    group(esdb, name, consumer_strategy="RoundRobin")
    with read_group(esdb, name) as holder:
        one = holder.one()
        with read_group(esdb, name) as other:
            other.subscription.ack(one)
            append(esdb, name, 2, 0)
            until(lambda: esdb.get_subscription_info("g", name).total_in_flight_messages == 3)
    assert raised(esdb.append_to_stream, name, current_version=2, events=event(3)) == ""
