"""Errors carry the status, the text and the trailers by which clients recognise them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from kt_es.eventstore.driver import EventStoreDBClient, StreamState
from tests.contracts.nodes import Reader, append, error_parts, unpacked

NO_STREAM, ANY, EXISTS = StreamState.NO_STREAM, StreamState.ANY, StreamState.EXISTS


def of_group(stream: str, exception: str) -> dict[str, str]:
    return {"exception": exception, "stream-name": stream, "group-name": "g"}


def test_a_wrong_version_names_both(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 3)
    for call in (esdb.delete_stream, esdb.tombstone_stream):
        status, text, trailers = error_parts(call, name, current_version=7)
        assert status is grpc.StatusCode.FAILED_PRECONDITION
        assert "WrongExpectedVersion" in text
        assert "Actual version: 2" in text
        expected = {"exception": "wrong-expected-version", "stream-name": name}
        expected |= {"expected-version": "7", "actual-version": "2"}
        assert expected.items() <= trailers.items()


def test_a_deleted_stream_is_named(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 1)
    esdb.tombstone_stream(name, current_version=ANY)
    calls: list[Callable[[], Any]] = [
        lambda: esdb.get_stream(name),
        lambda: esdb.delete_stream(name, current_version=ANY),
        lambda: esdb.tombstone_stream(name, current_version=ANY),
        lambda: next(esdb.subscribe_to_stream(name)),
    ]
    for call in calls:
        status, text, trailers = error_parts(call)
        assert status is grpc.StatusCode.FAILED_PRECONDITION
        assert "is deleted" in text
        assert {"exception": "stream-deleted", "stream-name": name}.items() <= trailers.items()


def test_a_missing_group_is_named(esdb: EventStoreDBClient, name: str) -> None:
    missing = "persistent-subscription-does-not-exist"
    for call in (esdb.get_subscription_info, esdb.delete_subscription, esdb.read_subscription_to_stream):
        status, _, trailers = error_parts(call, "g", name)
        assert status is grpc.StatusCode.NOT_FOUND
        assert of_group(name, missing).items() <= trailers.items()


def test_an_existing_group_is_named(esdb: EventStoreDBClient, name: str) -> None:
    esdb.create_subscription_to_stream("g", name)
    status, _, trailers = error_parts(esdb.create_subscription_to_stream, "g", name)
    assert status is grpc.StatusCode.ALREADY_EXISTS
    assert of_group(name, "persistent-subscription-exists").items() <= trailers.items()


def test_a_full_group_is_named(esdb: EventStoreDBClient, name: str) -> None:
    esdb.create_subscription_to_stream("g", name, max_subscriber_count=1)
    with Reader(esdb.read_subscription_to_stream("g", name)):
        status, text, trailers = error_parts(esdb.read_subscription_to_stream, "g", name)
    assert status is grpc.StatusCode.FAILED_PRECONDITION
    assert text.startswith("Maximum subscriptions reached")
    assert of_group(name, "maximum-subscribers-reached").items() <= trailers.items()


def test_a_group_that_cannot_work_is_named(esdb: EventStoreDBClient, name: str) -> None:
    status, text, trailers = error_parts(
        esdb.create_subscription_to_stream, "g", name, history_buffer_size=100
    )
    assert status is grpc.StatusCode.INTERNAL
    assert text.startswith(f"Subscription group g on stream {name} failed: '")
    assert of_group(name, "persistent-subscription-failed").items() <= trailers.items()


def test_the_error_of_a_dropped_consumer_names_its_group(esdb: EventStoreDBClient, name: str) -> None:
    append(esdb, name, 1)
    esdb.create_subscription_to_stream("g", name)
    reader = Reader(esdb.read_subscription_to_stream("g", name))
    reader.one()
    esdb.delete_subscription("g", name)
    assert reader.ends()
    status, _, trailers = unpacked(reader.failure)
    assert status is grpc.StatusCode.CANCELLED
    assert of_group(name, "persistent-subscription-dropped").items() <= trailers.items()
    reader.stop()
