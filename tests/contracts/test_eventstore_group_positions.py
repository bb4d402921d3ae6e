"""Persistent subscriptions: where a group goes on, what it refuses, in which order it delivers again."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from kt_es.eventstore.driver import EventStoreDBClient
from tests.contracts.nodes import Reader, append, error_parts, positions, until

INTERNAL = grpc.StatusCode.INTERNAL


def read(esdb: EventStoreDBClient, name: str) -> Reader:
    return Reader(esdb.read_subscription_to_stream("g", name), ack=True)


def test_an_update_drops_consumers_and_goes_back_to_the_last_checkpoint(
    esdb: EventStoreDBClient, name: str
) -> None:
    append(esdb, name, 3)
    esdb.create_subscription_to_stream("g", name)
    reader = read(esdb, name)
    reader.take(3)
    until(lambda: not esdb.get_subscription_info("g", name).total_in_flight_messages)
    # By default a checkpoint is written after ten events at the earliest.
    assert esdb.get_subscription_info("g", name).last_checkpointed_event_position == ""
    esdb.update_subscription_to_stream("g", name, max_retry_count=1)
    assert reader.ends() != ""
    append(esdb, name, 1, 2)
    with read(esdb, name) as second:
        assert positions(second.take(4)) == [0, 1, 2, 3]
    reader.stop()


def test_an_update_goes_on_behind_a_checkpoint(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 3)
    esdb.create_subscription_to_stream("g", name, min_checkpoint_count=1)
    reader = read(esdb, name)
    reader.take(3)
    until(lambda: esdb.get_subscription_info("g", name).last_checkpointed_event_position == "2")
    esdb.update_subscription_to_stream("g", name, max_retry_count=1)
    assert reader.ends() != ""
    append(esdb, name, 1, 2)
    with read(esdb, name) as second:
        assert positions([second.one()]) == [3]
    reader.stop()


def test_a_group_begins_behind_what_was_truncated(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 6)
    esdb.set_stream_metadata(name, metadata={"$tb": 4})
    esdb.create_subscription_to_stream("g", name)
    with read(esdb, name) as reader:
        assert positions(reader.take(2)) == [4, 5]


@pytest.mark.node_only("a server reads ahead from the group's creation on, and delivers what it has read")
def test_what_is_truncated_before_it_is_delivered_is_passed_over(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 6)
    esdb.create_subscription_to_stream("g", name)
    esdb.set_stream_metadata(name, metadata={"$tb": 4})
    with read(esdb, name) as reader:
        assert positions(reader.take(2)) == [4, 5]


IMPOSSIBLE: list[dict[str, Any]] = [
    {"history_buffer_size": 100},
    {"history_buffer_size": 200, "read_batch_size": 200},
    {"history_buffer_size": 20, "read_batch_size": 40},
]


@pytest.mark.parametrize("settings", IMPOSSIBLE)
def test_the_history_buffer_has_to_be_larger_than_a_batch(
    esdb: EventStoreDBClient, name: str, settings: dict[str, Any]
) -> None:
    for create, update, source in (
        (esdb.create_subscription_to_all, esdb.update_subscription_to_all, ()),
        (esdb.create_subscription_to_stream, esdb.update_subscription_to_stream, (name,)),
    ):
        assert error_parts(create, name, *source, **settings)[0] is INTERNAL
        create(name, *source, from_end=True)
        try:
            assert error_parts(update, name, *source, **settings)[0] is INTERNAL
            info = esdb.get_subscription_info(name, *source)
            assert (info.history_buffer_size, info.read_batch_size) == (500, 200)
        finally:
            esdb.delete_subscription(name, *source)


def test_an_unknown_strategy_is_refused(esdb: EventStoreDBClient, name: str) -> None:
    strategy: Any = "NoStrategy"
    assert error_parts(esdb.create_subscription_to_all, name, consumer_strategy=strategy)[0] is INTERNAL
    assert (
        error_parts(esdb.create_subscription_to_stream, "g", name, consumer_strategy=strategy)[0] is INTERNAL
    )


def test_a_group_cannot_begin_behind_the_end_of_all(esdb: EventStoreDBClient, name: str) -> None:
    assert error_parts(esdb.create_subscription_to_all, name, commit_position=2**60)[0] is INTERNAL


@pytest.mark.parametrize("stream", ["", "$all"])
def test_a_group_needs_the_name_of_a_stream(esdb: EventStoreDBClient, stream: str) -> None:
    assert error_parts(esdb.create_subscription_to_stream, "g", stream)[0] is INTERNAL


def test_a_message_comes_again_before_others_come(esdb: EventStoreDBClient, name: str) -> None:
    """One at a time, the first is never acknowledged: it comes until it is parked, then the others come."""
    esdb.create_subscription_to_all(
        name,
        from_end=True,
        filter_include=(name,),
        filter_by_stream_name=True,
        message_timeout=0.1,
        max_retry_count=3,
    )
    try:
        append(esdb, name, 3)
        with Reader(esdb.read_subscription_to_all(name, event_buffer_size=1)) as reader:
            came = [reader.one()]
            while came[-1].stream_position < 2:
                if came[-1].stream_position:
                    reader.subscription.ack(came[-1])
                came.append(reader.one())
        assert [(one.stream_position, one.retry_count) for one in came] == [
            (0, 0),
            (0, 1),
            (0, 2),
            (0, 3),
            (1, 0),
            (2, 0),
        ]
    finally:
        esdb.delete_subscription(name)
