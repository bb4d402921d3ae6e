"""The service ``event_store.client.persistent_subscriptions.PersistentSubscriptions``."""

# ruff: noqa: N802  methods have the protocol's names

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote

from kt_es.node.access.logins import credentials
from kt_es.node.groups.messages import Consumer, NackAction, Peer
from kt_es.node.groups.registry import Groups
from kt_es.node.groups.runner import GroupRunner
from kt_es.node.protocol import persistent_pb2, persistent_pb2_grpc, shared_pb2
from kt_es.node.refusals import Refusal, group_dropped, group_missing, invalid, not_ready, not_thought_of
from kt_es.node.rpc.append_messages import stream_name
from kt_es.node.rpc.group_messages import describe, settings_of, stream_of
from kt_es.node.store.log import NodeLog
from kt_es.node.store.records import canonical_ids, delivery, parsed, respelled, with_structured_ids
from kt_es.node.store.streams import ALL_NAME

MAX_IN_FLIGHT = 10_000  # messages of one consumer that wait for its acknowledgement, whatever it asks for
OPTIONS_SECONDS = 10.0  # within which the options of a read have to arrive
ANONYMOUS = "anonymous"
_ACTIONS = {action.value: action for action in NackAction}


class PersistentSubscriptions(persistent_pb2_grpc.PersistentSubscriptionsServicer):
    def __init__(self, log: NodeLog, groups: Groups) -> None:
        self._log = log
        self._groups = groups

    async def Create(self, request: persistent_pb2.CreateReq, _context: Any) -> persistent_pb2.CreateResp:
        stream, name, settings = settings_of(request.options)
        await self._groups.create(stream, name, settings)
        return persistent_pb2.CreateResp()

    async def Update(self, request: persistent_pb2.UpdateReq, _context: Any) -> persistent_pb2.UpdateResp:
        stream, name, settings = settings_of(request.options)
        await self._groups.update(stream, name, settings)
        return persistent_pb2.UpdateResp()

    async def Delete(self, request: persistent_pb2.DeleteReq, _context: Any) -> persistent_pb2.DeleteResp:
        await self._groups.delete(stream_of(request.options), request.options.group_name)
        return persistent_pb2.DeleteResp()

    async def GetInfo(self, request: persistent_pb2.GetInfoReq, _context: Any) -> persistent_pb2.GetInfoResp:
        runner = self._groups.get(stream_of(request.options), request.options.group_name)
        return persistent_pb2.GetInfoResp(subscription_info=describe(self._log, runner))

    async def List(self, request: persistent_pb2.ListReq, _context: Any) -> persistent_pb2.ListResp:
        options = request.options
        stream: str | None = None
        if options.WhichOneof("list_option") == "list_for_stream":
            asked = options.list_for_stream
            by_name = asked.WhichOneof("stream_option") == "stream"
            # In this request $all may be named like a stream.
            of_all = not by_name or asked.stream.stream_name == ALL_NAME.encode()
            stream = ALL_NAME if of_all else stream_name(asked.stream)
        found = self._groups.all(stream)
        if not found:
            raise group_missing(stream or "", "")
        return persistent_pb2.ListResp(subscriptions=[describe(self._log, runner) for runner in found])

    async def ReplayParked(
        self, request: persistent_pb2.ReplayParkedReq, _context: Any
    ) -> persistent_pb2.ReplayParkedResp:
        options = request.options
        limited = options.WhichOneof("stop_at_option") == "stop_at"
        runner = self._groups.get(stream_of(options), options.group_name)
        runner.replay(options.stop_at if limited else None)
        return persistent_pb2.ReplayParkedResp()

    async def RestartSubsystem(self, _request: shared_pb2.Empty, _context: Any) -> shared_pb2.Empty:
        await self._groups.restart()
        return shared_pb2.Empty()

    async def Read(self, requests: AsyncIterator[persistent_pb2.ReadReq], context: Any) -> None:
        # If a connection is cut at the wrong moment, the options never come, and the call would wait for
        # ever.
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
        runner = self._groups.get(stream_of(options), options.group_name)
        await _Reading(runner, options, context).serve(requests)


def _peer(context: Any) -> Peer:
    """Return the peer of a call.

    gRPC gives the address as "ipv4:address:port"; official clients give the name of their connection. The
    user is the one whom the gate has admitted; an open node admits everybody.
    """
    _, _, address = unquote(context.peer()).partition(":")
    metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    try:
        user, _ = credentials(metadata.get("authorization", ""))
    except Refusal:
        user = ANONYMOUS
    return Peer(address, user, metadata.get("connection-name", ""))


class _Reading:
    """One consumer's connection: events out, acknowledgements in."""

    def __init__(self, runner: GroupRunner, options: Any, context: Any) -> None:
        self._runner = runner
        self._context = context
        self._structured_ids = options.uuid_option.WhichOneof("content") == "structured"
        self._awake = asyncio.Event()
        self._consumer = Consumer(min(options.buffer_size, MAX_IN_FLIGHT), self._awake.set, _peer(context))

    async def serve(self, requests: AsyncIterator[persistent_pb2.ReadReq]) -> None:
        """Serve until the client or the group ends it; raise ``Refusal`` if the group is full or dropped."""
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
            next_delivery = outbox.popleft()
            stored = self._runner.payload(next_delivery)
            if stored is None:
                continue
            if self._structured_ids:
                event = parsed(stored)
                with_structured_ids(event)
                stored = respelled(event)
            retries = next_delivery.message.retries
            self._runner.group.sent(next_delivery)
            await self._context.write(delivery(stored, retries))

    async def _read_answers(self, requests: AsyncIterator[persistent_pb2.ReadReq]) -> None:
        async for request in requests:
            kind = request.WhichOneof("content")
            try:
                if kind == "ack":
                    self._runner.ack(self._consumer, canonical_ids(request.ack.ids))
                elif kind == "nack":
                    action = _ACTIONS.get(request.nack.action, NackAction.UNKNOWN)
                    self._runner.nack(self._consumer, canonical_ids(request.nack.ids), action)
            except ValueError:
                raise invalid("an acknowledgement names an id that is not a UUID") from None
