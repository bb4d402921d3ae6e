"""What is said about a persistent subscription."""

from __future__ import annotations

from kt_es.eventstore.driver import persistent_pb2
from kt_es.node.groups.runner import GroupRunner
from kt_es.node.groups.values import Consumer
from kt_es.node.store.log import EventLog
from kt_es.node.store.streams import ALL_NAME


def _place(of_all: bool, order: int) -> str:
    return f"C:{order}/P:{order}" if of_all else str(order)


def _connection(consumer: Consumer, now: float) -> persistent_pb2.SubscriptionInfo.ConnectionInfo:
    peer, rate = consumer.peer, consumer.rate
    connection = persistent_pb2.SubscriptionInfo.ConnectionInfo(
        username=peer.user,
        connection_name=peer.connection,
        average_items_per_second=rate.per_second(now),
        total_items=rate.total,
        count_since_last_measurement=rate.since_measured(),
        available_slots=consumer.capacity - consumer.in_flight,
        in_flight_messages=consumer.in_flight,
    )
    setattr(connection, "from", peer.address)  # a word of Python too
    return connection


def describe(log: EventLog, runner: GroupRunner) -> persistent_pb2.SubscriptionInfo:
    """The group's settings and figures. Positions are texts: a revision, or ``C:n/P:n`` in $all.

    What was counted "since the last measurement" is counted since this was last asked, by anybody.
    """
    settings, group = runner.settings, runner.group
    of_all = runner.stream == ALL_NAME
    known = group.progress.known if of_all else log.head(runner.stream).last
    done = group.progress.checkpoint - 1 if runner.checkpointed else -1
    now = runner.now
    return persistent_pb2.SubscriptionInfo(
        event_source=runner.stream,
        group_name=runner.name,
        status="Live",
        connections=[_connection(consumer, now) for consumer in group.consumers],
        average_per_second=group.rate.per_second(now),
        total_items=group.rate.total,
        count_since_last_measurement=group.rate.since_measured(),
        last_checkpointed_event_position=_place(of_all, done) if done >= 0 else "",
        last_known_event_position=_place(of_all, known) if known >= 0 else "",
        resolve_link_tos=settings.resolve_links,
        start_from=_place(of_all, settings.start),
        message_timeout_milliseconds=settings.message_timeout,
        extra_statistics=settings.extra_statistics,
        max_retry_count=settings.max_retry_count,
        live_buffer_size=settings.live_buffer_size,
        buffer_size=settings.history_buffer_size,
        read_batch_size=settings.read_batch_size,
        check_point_after_milliseconds=settings.checkpoint_after,
        min_check_point_count=settings.min_checkpoint_count,
        max_check_point_count=settings.max_checkpoint_count,
        read_buffer_count=group.buffered,
        live_buffer_count=0,  # there is one buffer, and it is filled by reading
        retry_buffer_count=group.retrying,
        total_in_flight_messages=group.in_flight,
        outstanding_messages_count=group.in_flight,
        named_consumer_strategy=settings.strategy.value,
        max_subscriber_count=settings.max_subscriber_count,
        parked_message_count=runner.parked_count,
    )
