"""Parked messages are replayed a few at a time, and only those that were parked when it was asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

import pytest

from kt_es.node.groups.messages import Consumer
from kt_es.node.groups.runner import GroupRunner
from kt_es.node.groups.settings import GroupSettings, parked_stream
from kt_es.node.groups.sources import REPLAY_AHEAD
from kt_es.node.store.log import NodeLog
from kt_es.node.store.reading import link_event
from kt_es.node.store.records import Proposed
from kt_es.node.store.rocks import RocksStorage
from kt_es.node.store.streams import Expected

COUNT = 3 * REPLAY_AHEAD


async def parked(log: NodeLog, count: int) -> GroupRunner:
    event = Proposed(str(UUID(int=1)), "T", "application/json", b"", b"{}")
    await log.append("s", Expected.NO_STREAM, [event])
    await log.append(parked_stream("s", "g"), Expected.ANY, [link_event(0, "s") for _ in range(count)])
    return GroupRunner(log, "s", "g", GroupSettings(), 1, origin=1)


@pytest.mark.parametrize("limit", [None, 7, REPLAY_AHEAD + 7, 2 * COUNT])
def test_replaying_many_holds_few(tmp_path: Path, limit: int | None) -> None:
    async def scenario() -> list[int]:
        log = NodeLog(RocksStorage(tmp_path), lambda: 0.0, lambda _error: None)
        runner = await parked(log, COUNT)
        consumer = Consumer(50, lambda: None)
        runner.connect(consumer)
        runner.replay(limit)
        await log.append(parked_stream("s", "g"), Expected.ANY, [link_event(0, "s")])
        came: list[int] = []
        most = 0
        while consumer.outbox:
            most = max(most, runner.group.retrying)
            given = consumer.outbox.popleft()
            came.append(given.message.parked)
            runner.ack(consumer, [given.message.id])
        assert most < 2 * REPLAY_AHEAD
        await runner.close()
        await log.close()
        return came

    came = asyncio.run(scenario())
    assert came == list(range(min(COUNT, COUNT if limit is None else limit)))


def test_what_is_being_replayed_is_not_replayed_twice(tmp_path: Path) -> None:
    async def scenario() -> tuple[int, int]:
        log = NodeLog(RocksStorage(tmp_path), lambda: 0.0, lambda _error: None)
        runner = await parked(log, 10)
        consumer = Consumer(50, lambda: None)
        runner.connect(consumer)
        runner.replay(4)
        runner.replay(4)
        runner.replay(None)
        sent = len(consumer.outbox)
        runner.ack(consumer, [delivery.message.id for delivery in consumer.outbox])
        left = runner.parked.count
        await runner.close()
        await log.close()
        return sent, left

    assert asyncio.run(scenario()) == (10, 0)
