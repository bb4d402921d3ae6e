"""Reading requests about persistent subscriptions, and making the answers."""

from __future__ import annotations

from typing import Any

from kt_es.node.groups.messages import Consumer
from kt_es.node.groups.runner import GroupRunner
from kt_es.node.groups.settings import GroupSettings, Strategy, predicate
from kt_es.node.protocol import persistent_pb2
from kt_es.node.refusals import group_failed, invalid
from kt_es.node.rpc.append_messages import stream_name
from kt_es.node.rpc.read import filter_of
from kt_es.node.store.log import NodeLog
from kt_es.node.store.streams import ALL_NAME, LAST_REVISION

MAX_GROUP_NAME = 1024  # bytes
_SIZES = ("read_batch_size", "history_buffer_size", "live_buffer_size")
_COUNTS = ("max_retry_count", "min_checkpoint_count", "max_checkpoint_count", "max_subscriber_count")
_SAME = ("resolve_links", "extra_statistics", *_COUNTS, *_SIZES)  # named alike in requests and settings
_TICKS_PER_MS = 10_000
_FROM_END = 2**64 - 1  # the deprecated spelling
_NAMED = persistent_pb2.CreateReq.ConsumerStrategy


def stream_of(options: Any) -> str:
    """Return the stream that a request is about; "$all" for all."""
    kind = options.WhichOneof("stream_option")
    if kind == "all":
        return ALL_NAME
    if kind == "stream":
        identifier = options.stream.stream_identifier
    elif options.HasField("stream_identifier"):  # without a kind: deprecated, and sent by the client for Node
        identifier = options.stream_identifier
    else:
        raise invalid("neither a stream nor $all is named")
    if identifier.stream_name in {b"", ALL_NAME.encode()}:
        raise group_failed(identifier.stream_name.decode(), options.group_name, "Bad stream name.")
    return stream_name(identifier)


def settings_of(options: Any) -> tuple[str, str, GroupSettings]:
    """Return the stream, group and settings of a creation or an update."""
    stream = stream_of(options)
    name = options.group_name
    if not name or len(name.encode()) > MAX_GROUP_NAME:
        raise invalid(f"a group's name has 1 to {MAX_GROUP_NAME} bytes, not {len(name.encode())}")
    asked = options.settings
    same = {name: getattr(asked, name) for name in _SAME}
    is_new = isinstance(options, persistent_pb2.CreateReq.Options)
    settings = GroupSettings(
        start=_start(options),
        message_timeout=_milliseconds(asked, "message_timeout"),
        checkpoint_after=_milliseconds(asked, "checkpoint_after"),
        strategy=_strategy(stream, name, asked, is_new),
        filter=filter_of(options.all) if stream == ALL_NAME and is_new else None,
        **same,
    )
    return stream, name, _checked(settings)


def _start(options: Any) -> int:
    """Return the order at which a group starts; -1 is the end."""
    match options.WhichOneof("stream_option"):
        case "all":
            kind, given = options.all.WhichOneof("all_option"), options.all.position.commit_position
        case "stream":
            kind, given = options.stream.WhichOneof("revision_option"), options.stream.revision
        case _:
            # Deprecated, and sent by the client for Node.
            given = options.settings.revision
            kind = "end" if given == _FROM_END else "revision"
    order: int = {None: 0, "start": 0, "end": -1}.get(kind, given)
    if order > LAST_REVISION:
        raise invalid(f"a group cannot start at {order}")
    return order


def _milliseconds(asked: Any, what: str) -> int:
    kind = asked.WhichOneof(what)
    if kind is None:
        return 0
    value: int = getattr(asked, kind)
    return value // _TICKS_PER_MS if kind.endswith("ticks") else value


def _strategy(stream: str, group: str, asked: Any, is_new: bool) -> Strategy:
    name = asked.consumer_strategy if is_new else ""
    try:
        return Strategy(name or _NAMED.Name(asked.named_consumer_strategy))
    except ValueError:
        wanted = name or asked.named_consumer_strategy
        raise group_failed(stream, group, f"Consumer strategy {wanted} does not exist.") from None


def _checked(settings: GroupSettings) -> GroupSettings:
    for name in _SIZES:
        if getattr(settings, name) < 1:
            raise invalid(f"{name} has to be at least 1, not {getattr(settings, name)}")
    predicate(settings.filter)
    return settings


def _order_text(of_all: bool, order: int) -> str:
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
    setattr(connection, "from", peer.address)  # a keyword of Python
    return connection


def describe(log: NodeLog, runner: GroupRunner) -> persistent_pb2.SubscriptionInfo:
    """Return the group's settings and counts. Positions are texts: a revision, or ``C:n/P:n`` in $all.

    Counts "since the last measurement" are counts since the last call, whoever made it.
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
        average_per_second=group.consumers.rate.per_second(now),
        total_items=group.consumers.rate.total,
        count_since_last_measurement=group.consumers.rate.since_measured(),
        last_checkpointed_event_position=_order_text(of_all, done) if done >= 0 else "",
        last_known_event_position=_order_text(of_all, known) if known >= 0 else "",
        resolve_link_tos=settings.resolve_links,
        start_from=_order_text(of_all, settings.start),
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
        live_buffer_count=0,  # the one buffer is the read buffer
        retry_buffer_count=group.retrying,
        total_in_flight_messages=group.in_flight,
        outstanding_messages_count=group.in_flight,
        named_consumer_strategy=settings.strategy.value,
        max_subscriber_count=settings.max_subscriber_count,
        parked_message_count=runner.parked.count,
    )
