"""Persistent subscriptions: their figures, consumer strategies, negative acknowledgements, links."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kt_es.eventstore.driver import EventStoreDBClient, NewEvent, StreamState
from tests.contracts.nodes import append, event, events, positions, read_group, until

NO_STREAM = StreamState.NO_STREAM


def test_what_is_in_flight_is_reported(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 9)
    esdb.create_subscription_to_stream("g", name, min_checkpoint_count=1, max_checkpoint_count=1)
    info = esdb.get_subscription_info("g", name)
    assert (info.total_items, info.total_in_flight_messages, info.retry_buffer_count) == (0, 0, 0)
    assert (info.average_per_second, info.last_checkpointed_event_position) == (0, "")
    with read_group(esdb, name, event_buffer_size=3) as reader:
        came = reader.take(3)
        info = esdb.get_subscription_info("g", name)
        assert (info.total_in_flight_messages, info.outstanding_messages_count) == (3, 3)
        assert info.total_items >= 3
        assert info.average_per_second >= 0
        reader.subscription.ack(came[0])
        reader.one()
        until(lambda: esdb.get_subscription_info("g", name).last_checkpointed_event_position == "0")
        info = esdb.get_subscription_info("g", name)
        assert (info.last_known_event_position, info.total_in_flight_messages) == ("8", 3)


def test_what_came_since_it_was_last_asked_is_reported(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 4)
    esdb.create_subscription_to_stream("g", name)
    with read_group(esdb, name, ack=True) as reader:
        reader.take(4)
        until(lambda: not esdb.get_subscription_info("g", name).total_in_flight_messages)
        assert esdb.get_subscription_info("g", name).count_since_last_measurement == 0
        append(esdb, name, 3, 3)
        reader.take(3)
        assert esdb.get_subscription_info("g", name).count_since_last_measurement == 3


def sides(esdb: EventStoreDBClient, stream: str, batch: list[NewEvent], **group: Any) -> list[list[Any]]:
    """What each of two consumers gets of a new stream."""
    esdb.create_subscription_to_stream("g", stream, **group)
    with read_group(esdb, stream) as one, read_group(esdb, stream) as other:
        esdb.append_to_stream(stream, current_version=NO_STREAM, events=batch)
        until(lambda: one.waiting + other.waiting == len(batch))
        return [reader.take(reader.waiting) for reader in (one, other)]


def correlated(number: int, correlation: str) -> NewEvent:
    return event(number, metadata=json.dumps({"$correlationId": correlation}).encode())


def test_events_of_one_correlation_go_to_one_consumer(esdb: EventStoreDBClient, name: str) -> None:
    batch = [correlated(number, f"c{number % 20}") for number in range(60)]
    one, other = sides(esdb, name, batch, consumer_strategy="PinnedByCorrelation")
    assert esdb.get_subscription_info("g", name).consumer_strategy == "PinnedByCorrelation"
    correlations = [{recorded.metadata for recorded in side} for side in (one, other)]
    assert not correlations[0] & correlations[1]
    assert min(map(len, correlations)) > 0
    assert sorted(positions(one + other)) == list(range(60))


def links(esdb: EventStoreDBClient, name: str, streams: int) -> list[NewEvent]:
    """Links to two events of each of so many streams."""
    for number in range(streams):
        append(esdb, f"{name}-{number}", 2)
    return [
        NewEvent(type="$>", data=f"{at}@{name}-{number}".encode(), content_type="application/octet-stream")
        for at in range(2)
        for number in range(streams)
    ]


def test_events_of_one_stream_are_pinned_to_one_consumer(esdb: EventStoreDBClient, name: str) -> None:
    batch = links(esdb, name, 20)
    one, other = sides(esdb, name, batch, consumer_strategy="Pinned", resolve_links=True)
    origins = [{recorded.stream_name for recorded in side} for side in (one, other)]
    assert not origins[0] & origins[1]
    assert min(map(len, origins)) > 0


def test_links_are_resolved_and_acknowledged(esdb: EventStoreDBClient, name: str) -> None:
    stream = name + "-links"
    esdb.append_to_stream(stream, current_version=NO_STREAM, events=links(esdb, name, 3))
    esdb.create_subscription_to_stream("g", stream, resolve_links=True)
    with read_group(esdb, stream, ack=True) as reader:
        came = reader.take(6)
        until(lambda: not esdb.get_subscription_info("g", stream).total_in_flight_messages)
    assert [one.stream_name for one in came[:3]] == [f"{name}-0", f"{name}-1", f"{name}-2"]
    assert [one.link.stream_position for one in came] == list(range(6))
    append(esdb, name + "-9", 1)
    one = NewEvent(type="$>", data=f"0@{name}-9".encode(), content_type="application/octet-stream")
    esdb.append_to_stream(stream, current_version=5, events=one)
    with read_group(esdb, stream, ack=True) as reader:
        assert reader.one().stream_name == name + "-9"


ACTIONS = [("park", 1, []), ("skip", 0, []), ("retry", 0, [(0, 1)]), ("unknown", 0, [(0, 1)])]


@pytest.mark.parametrize(("action", "parked", "again"), ACTIONS)
def test_what_a_negative_acknowledgement_asks_for_is_done(
    esdb: EventStoreDBClient, name: str, action: Any, parked: int, again: list[tuple[int, int]]
) -> None:
    append(esdb, name, 1)
    esdb.create_subscription_to_stream("g", name)
    with read_group(esdb, name) as reader:
        reader.subscription.nack(reader.one(), action)
        came = [(one.stream_position, one.retry_count) for one in reader.take(len(again))]
        until(lambda: esdb.get_subscription_info("g", name).parked_message_count == parked)
        append(esdb, name, 1, 0)
        came += [(one.stream_position, one.retry_count) for one in reader.take(1)]
    assert came == [*again, (1, 0)]


def test_parked_messages_survive_more_of_them(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 4)
    esdb.create_subscription_to_stream("g", name, max_retry_count=0)
    with read_group(esdb, name) as reader:
        for one in reader.take(4):
            reader.subscription.nack(one, "retry")
        until(lambda: esdb.get_subscription_info("g", name).parked_message_count == 4)
        esdb.replay_parked_events("g", name)
        again = reader.take(4)
        assert positions(again) == [0, 1, 2, 3]
        reader.subscription.nack(again[2], "park")
        for one in (again[0], again[1], again[3]):
            reader.subscription.ack(one)
        until(lambda: esdb.get_subscription_info("g", name).parked_message_count == 1)
        esdb.replay_parked_events("g", name)
        assert positions([reader.one()]) == [2]


def test_a_group_of_a_stream_that_is_not_there_waits(esdb: EventStoreDBClient, name: str) -> None:
    esdb.create_subscription_to_stream("g", name, stream_position=2)
    with read_group(esdb, name, ack=True) as reader:
        esdb.append_to_stream(name, current_version=NO_STREAM, events=events(4))
        assert positions(reader.take(2)) == [2, 3]
