"""Reads and catch-up subscriptions of ``Streams.Read``.

A subscription reads chunks from storage as fast as its client takes them, and sleeps when it has caught up.
So a slow subscription holds one chunk, and one message on its way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from uuid import uuid4

from kt_es.node.groups.settings import Filter, make_filter, predicate
from kt_es.node.protocol import shared_pb2, streams_pb2
from kt_es.node.refusals import invalid, stream_deleted
from kt_es.node.rpc.append_messages import stream_name
from kt_es.node.store.log import ALL, NodeLog, Wakeups
from kt_es.node.store.reading import Chunk, all_backwards, all_forwards, backwards, forwards, resolve
from kt_es.node.store.records import parsed, position_of, read_response, respelled, with_structured_ids
from kt_es.node.store.streams import LAST_REVISION
from kt_es.node.store.transaction import described_by

Spell = Callable[[bytes], bytes]
_BACKWARDS = streams_pb2.ReadReq.Options.Backwards
_CAUGHT_UP = streams_pb2.ReadResp(caught_up=streams_pb2.ReadResp.CaughtUp()).SerializeToString()


async def serve_read(
    log: NodeLog, options: streams_pb2.ReadReq.Options, context: Any, may_read: Callable[[str], bool]
) -> None:
    """Answer one ``Read`` call. ``may_read`` tells whether the caller may read a stream that a link names."""
    spell = _speller(log, options, may_read)
    of_stream = options.WhichOneof("stream_option") == "stream"
    subscribed = options.WhichOneof("count_option") == "subscription"
    if not of_stream and options.WhichOneof("stream_option") != "all":
        raise invalid("neither a stream nor $all is asked for")
    if subscribed and options.read_direction == _BACKWARDS:
        raise invalid("a subscription reads forwards")
    if of_stream and subscribed:
        await _subscribe_to_stream(log, options.stream, context, spell)
    elif of_stream:
        await _read_stream(log, options, context, spell)
    elif subscribed:
        await _subscribe_to_all(log, options, context, spell)
    else:
        await _read_all(log, options, context, spell)


def _speller(log: NodeLog, options: streams_pb2.ReadReq.Options, may_read: Callable[[str], bool]) -> Spell:
    """Return the function that makes answers of stored events: resolves links, spells ids as requested."""
    links, numbers = options.resolve_links, options.uuid_option.WhichOneof("content") == "structured"
    if not links and not numbers:
        return read_response

    def spell(stored: bytes) -> bytes:
        event = resolve(log, stored, may_read) if links else parsed(stored)
        if event is None:
            return read_response(stored)
        if numbers:
            with_structured_ids(event)
        return read_response(respelled(event))

    return spell


def filter_of(options: Any) -> Filter | None:
    if options.WhichOneof("filter_option") != "filter":
        return None
    asked = options.filter
    by_stream = asked.WhichOneof("filter") == "stream_identifier"
    expression = asked.stream_identifier if by_stream else asked.event_type
    window = asked.max if asked.WhichOneof("window") == "max" else 1
    return make_filter(
        by_stream, expression.regex, expression.prefix, window, asked.checkpointIntervalMultiplier
    )


async def _read_stream(
    log: NodeLog, options: streams_pb2.ReadReq.Options, context: Any, spell: Spell
) -> None:
    name = stream_name(options.stream.stream_identifier)
    head = log.head(name)
    if _is_gone(log, name):
        raise stream_deleted(name)
    if not head.exists:
        identifier = shared_pb2.StreamIdentifier(stream_name=name.encode())
        missing = streams_pb2.ReadResp.StreamNotFound(stream_identifier=identifier)
        await context.write(streams_pb2.ReadResp(stream_not_found=missing))
        return
    down = options.read_direction == _BACKWARDS
    read = backwards if down else forwards
    at = {"start": 0, "end": LAST_REVISION}.get(
        options.stream.WhichOneof("revision_option") or "start", options.stream.revision
    )
    left = options.count
    while left > 0:
        chunk = read(log, name, at, left)
        for stored in chunk.events[:left]:
            await context.write(spell(stored))
        left -= len(chunk.events)
        at = chunk.following
        if not chunk.more:
            return
        # If all events have expired, nothing is written, and other calls would wait.
        await asyncio.sleep(0)


async def _read_all(log: NodeLog, options: streams_pb2.ReadReq.Options, context: Any, spell: Spell) -> None:
    passes = predicate(filter_of(options))
    down = options.read_direction == _BACKWARDS
    read = all_backwards if down else all_forwards
    at = _position(options.all, start=0, end=log.position + 1)
    left = options.count
    while left > 0:
        chunk = read(log, at)
        for stored in chunk.events:
            if left > 0 and passes(stored):
                await context.write(spell(stored))
                left -= 1
        at = chunk.following
        if not chunk.more:
            return
        await asyncio.sleep(0)


def _position(options: Any, start: int, end: int) -> int:
    kind = options.WhichOneof("all_option") or "start"
    position: int = options.position.commit_position
    return {"start": start, "end": end}.get(kind, position)


def _confirmation() -> streams_pb2.ReadResp:
    confirmation = streams_pb2.ReadResp.SubscriptionConfirmation(subscription_id=str(uuid4()))
    return streams_pb2.ReadResp(confirmation=confirmation)


async def _subscribe_to_stream(log: NodeLog, asked: Any, context: Any, spell: Spell) -> None:
    name = stream_name(asked.stream_identifier)
    if _is_gone(log, name):
        raise stream_deleted(name)
    at = {"start": 0, "end": log.head(name).last + 1}.get(
        asked.WhichOneof("revision_option") or "start", asked.revision + 1
    )

    async def write(chunk: Chunk) -> None:
        for stored in chunk.events:
            await context.write(spell(stored))
        if chunk.events and chunk.following > LAST_REVISION:
            raise stream_deleted(name)  # a tombstone was the last event

    await context.write(_confirmation())
    await _follow(log.wakeups, name, partial(forwards, log, name), at, write=write, context=context)


def _is_gone(log: NodeLog, name: str) -> bool:
    """Return whether a stream is tombstoned, or is the metadata of a tombstoned one."""
    return log.head(described_by(name) or name).tombstoned


async def _subscribe_to_all(
    log: NodeLog, options: streams_pb2.ReadReq.Options, context: Any, spell: Spell
) -> None:
    filter_ = filter_of(options)
    passes = predicate(filter_)
    every = filter_.checkpoint_every if filter_ is not None else 0
    looked = 0

    async def write(chunk: Chunk) -> None:
        """Write the events that pass the filter, and a checkpoint after ``every`` so many events read."""
        nonlocal looked
        for stored in chunk.events:
            if passes(stored):
                await context.write(spell(stored))
            looked += 1
            if looked == every:
                looked = 0
                position = position_of(stored)
                at = streams_pb2.ReadResp.Checkpoint(commit_position=position, prepare_position=position)
                await context.write(streams_pb2.ReadResp(checkpoint=at))

    start = _position(options.all, start=-1, end=log.position) + 1
    await context.write(_confirmation())
    await _follow(log.wakeups, ALL, partial(all_forwards, log), start, write=write, context=context)


async def _follow(
    wakeups: Wakeups,
    name: str,
    read: Callable[[int], Chunk],
    at: int,
    *,
    write: Callable[[Chunk], Awaitable[None]],
    context: Any,
) -> None:
    """Read from ``at`` on without end. At the end of the log write "caught up", once, and wait for more."""
    grown = asyncio.Event()
    wakeups.add(name, grown.set)
    caught_up = False
    try:
        while True:
            grown.clear()
            chunk = read(at)
            at = chunk.following
            await write(chunk)
            if not chunk.more and not caught_up:
                caught_up = True
                await context.write(_CAUGHT_UP)
            if chunk.more:
                await asyncio.sleep(0)
            else:
                await grown.wait()
    finally:
        wakeups.remove(name, grown.set)
