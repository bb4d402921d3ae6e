"""The service ``event_store.client.persistent_subscriptions.PersistentSubscriptions``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote

from kt_es.eventstore.driver import persistent_pb2, persistent_pb2_grpc, shared_pb2
from kt_es.node.access.logins import credentials
from kt_es.node.groups.filters import predicate
from kt_es.node.groups.registry import Groups
from kt_es.node.groups.runner import GroupRunner
from kt_es.node.groups.values import Action, Consumer, Peer, Settings, Strategy
from kt_es.node.refusals import (
    Refusal,
    group_dropped,
    group_failed,
    group_missing,
    invalid,
    not_ready,
    not_thought_of,
)
from kt_es.node.rpc.append import stream_name
from kt_es.node.rpc.group_info import describe
from kt_es.node.rpc.read import filter_of
from kt_es.node.store.log import EventLog
from kt_es.node.store.records import canonical_ids, delivery, parsed, respelled, with_structured_ids
from kt_es.node.store.streams import ALL_NAME, LAST_REVISION

MAX_GROUP_NAME = 1024
MAX_IN_FLIGHT = 10_000  # messages of one consumer that wait for its acknowledgement, whatever it asks for
OPTIONS_SECONDS = 10.0  # that a read may take to say what it wants to read
ANONYMOUS = "anonymous"
_TICKS_PER_MS = 10_000
_FROM_END = 2**64 - 1  # the deprecated way to say it
_ACTIONS = {action.value: action for action in Action}
_NAMED = persistent_pb2.CreateReq.ConsumerStrategy


class PersistentSubscriptions(persistent_pb2_grpc.PersistentSubscriptionsServicer):
    """Groups of consumers: their administration, and their reading."""

    def __init__(self, log: EventLog, groups: Groups) -> None:
        self._log = log
        self._groups = groups

    async def Create(  # noqa: N802  the protocol's names
        self, request: persistent_pb2.CreateReq, _context: Any
    ) -> persistent_pb2.CreateResp:
        stream, name, settings = _settings(request.options)
        await self._groups.create(stream, name, settings)
        return persistent_pb2.CreateResp()

    async def Update(  # noqa: N802
        self, request: persistent_pb2.UpdateReq, _context: Any
    ) -> persistent_pb2.UpdateResp:
        stream, name, settings = _settings(request.options)
        await self._groups.update(stream, name, settings)
        return persistent_pb2.UpdateResp()

    async def Delete(  # noqa: N802
        self, request: persistent_pb2.DeleteReq, _context: Any
    ) -> persistent_pb2.DeleteResp:
        await self._groups.delete(_stream(request.options), request.options.group_name)
        return persistent_pb2.DeleteResp()

    async def GetInfo(  # noqa: N802
        self, request: persistent_pb2.GetInfoReq, _context: Any
    ) -> persistent_pb2.GetInfoResp:
        runner = self._groups.get(_stream(request.options), request.options.group_name)
        return persistent_pb2.GetInfoResp(subscription_info=describe(self._log, runner))

    async def List(  # noqa: N802
        self, request: persistent_pb2.ListReq, _context: Any
    ) -> persistent_pb2.ListResp:
        options = request.options
        stream: str | None = None
        if options.WhichOneof("list_option") == "list_for_stream":
            asked = options.list_for_stream
            by_name = asked.WhichOneof("stream_option") == "stream"
            # Here $all may be named like a stream.
            of_all = not by_name or asked.stream.stream_name == ALL_NAME.encode()
            stream = ALL_NAME if of_all else stream_name(asked.stream)
        found = self._groups.all(stream)
        if not found:
            raise _nothing_listed(stream)
        return persistent_pb2.ListResp(subscriptions=[describe(self._log, runner) for runner in found])

    async def ReplayParked(  # noqa: N802
        self, request: persistent_pb2.ReplayParkedReq, _context: Any
    ) -> persistent_pb2.ReplayParkedResp:
        options = request.options
        limited = options.WhichOneof("stop_at_option") == "stop_at"
        runner = self._groups.get(_stream(options), options.group_name)
        runner.replay(options.stop_at if limited else None)
        return persistent_pb2.ReplayParkedResp()

    async def RestartSubsystem(  # noqa: N802
        self, _request: shared_pb2.Empty, _context: Any
    ) -> shared_pb2.Empty:
        await self._groups.restart()
        return shared_pb2.Empty()

    async def Read(  # noqa: N802
        self, requests: AsyncIterator[persistent_pb2.ReadReq], context: Any
    ) -> None:
        # A connection that is cut at the wrong moment can leave a call without it, which would wait for ever.
        try:
            async with asyncio.timeout(OPTIONS_SECONDS):
                first = await anext(aiter(requests), None)
        except TimeoutError:
            raise not_ready("the options of a read did not arrive") from None
        if first is None or first.WhichOneof("content") != "options":
            raise invalid("a read of a persistent subscription begins with its options")
        options = first.options
        if not options.group_name:
            raise not_thought_of()
        if options.buffer_size < 1:
            raise invalid("buffer_size has to be at least 1")
        runner = self._groups.get(_stream(options), options.group_name)
        await _Reading(runner, options, context).serve(requests)


def _peer(context: Any) -> Peer:
    """Who calls: gRPC says "ipv4:address:port", official clients the name of their connection.

    The user is the one whom the gate has let through; an open node lets everybody through.
    """
    _, _, address = unquote(context.peer()).partition(":")
    said = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    try:
        user, _ = credentials(said.get("authorization", ""))
    except Refusal:
        user = ANONYMOUS
    return Peer(address, user, said.get("connection-name", ""))


class _Reading:
    """One consumer's connection: events out, acknowledgements in."""

    def __init__(self, runner: GroupRunner, options: Any, context: Any) -> None:
        self._runner = runner
        self._context = context
        self._numbers = options.uuid_option.WhichOneof("content") == "structured"
        self._awake = asyncio.Event()
        self._consumer = Consumer(min(options.buffer_size, MAX_IN_FLIGHT), self._awake.set, _peer(context))

    async def serve(self, requests: AsyncIterator[persistent_pb2.ReadReq]) -> None:
        """Until the client ends it or the group does.

        Raises:
            Refusal: the group is full, or was dropped.
        """
        runner = self._runner
        runner.connect(self._consumer)
        answers: asyncio.Task[None] | None = None
        try:
            runner.pump()
            answers = asyncio.create_task(self._read_answers(requests))
            answers.add_done_callback(lambda _task: self._awake.set())
            confirmed = persistent_pb2.ReadResp.SubscriptionConfirmation(
                subscription_id=f"{runner.stream}::{runner.name}"
            )
            await self._context.write(persistent_pb2.ReadResp(subscription_confirmation=confirmed))
            while True:
                await self._send()
                if self._consumer.dropped:
                    raise group_dropped(runner.stream, runner.name)
                if answers.done():
                    answers.result()
                    return
                await self._awake.wait()
                self._awake.clear()
        finally:
            if answers is not None:
                answers.cancel()
            runner.disconnect(self._consumer)

    async def _send(self) -> None:
        outbox = self._consumer.outbox
        while outbox and not self._consumer.dropped:
            given = outbox.popleft()
            stored = self._runner.payload(given)
            if stored is None:
                continue
            if self._numbers:
                event = parsed(stored)
                with_structured_ids(event)
                stored = respelled(event)
            retries = given.message.retries
            self._runner.sent(given)
            await self._context.write(delivery(stored, retries))

    async def _read_answers(self, requests: AsyncIterator[persistent_pb2.ReadReq]) -> None:
        async for request in requests:
            kind = request.WhichOneof("content")
            try:
                if kind == "ack":
                    self._runner.ack(self._consumer, canonical_ids(request.ack.ids))
                elif kind == "nack":
                    action = _ACTIONS.get(request.nack.action, Action.UNKNOWN)
                    self._runner.nack(self._consumer, canonical_ids(request.nack.ids), action)
            except ValueError:
                raise invalid("an acknowledgement names an id that is not a UUID") from None


def _stream(options: Any) -> str:
    """The stream that a request is about; "$all" for all."""
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


def _nothing_listed(stream: str | None) -> Refusal:
    return group_missing(stream or "", "")


def _settings(options: Any) -> tuple[str, str, Settings]:
    """Stream, group and settings of a creation or an update.

    Raises:
        Refusal: the request cannot be understood.
    """
    stream = _stream(options)
    name = options.group_name
    if not name or len(name.encode()) > MAX_GROUP_NAME:
        raise invalid(f"a group's name has 1 to {MAX_GROUP_NAME} bytes")
    asked = options.settings
    is_new = isinstance(options, persistent_pb2.CreateReq.Options)
    settings = Settings(
        start=_start(options),
        resolve_links=asked.resolve_links,
        extra_statistics=asked.extra_statistics,
        message_timeout=_milliseconds(asked, "message_timeout"),
        max_retry_count=asked.max_retry_count,
        min_checkpoint_count=asked.min_checkpoint_count,
        max_checkpoint_count=asked.max_checkpoint_count,
        checkpoint_after=_milliseconds(asked, "checkpoint_after"),
        max_subscriber_count=asked.max_subscriber_count,
        live_buffer_size=asked.live_buffer_size,
        read_batch_size=asked.read_batch_size,
        history_buffer_size=asked.history_buffer_size,
        strategy=_strategy(stream, name, asked, is_new),
        filter=filter_of(options.all) if stream == ALL_NAME and is_new else None,
    )
    return stream, name, _checked(settings)


def _start(options: Any) -> int:
    """The order at which a group starts; -1 is the end."""
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


def _checked(settings: Settings) -> Settings:
    counts = {
        "read_batch_size": settings.read_batch_size,
        "history_buffer_size": settings.history_buffer_size,
        "live_buffer_size": settings.live_buffer_size,
    }
    for name, value in counts.items():
        if value < 1:
            raise invalid(f"{name} has to be at least 1")
    try:
        predicate(settings.filter)
    except ValueError as error:
        raise invalid(str(error)) from None
    return settings
