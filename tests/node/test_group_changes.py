"""Groups that are changed: by several at once, and where they go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from kt_es.node.groups.messages import Consumer
from kt_es.node.groups.registry import Groups
from kt_es.node.groups.settings import GroupSettings, checkpoint_key
from kt_es.node.store.log import NodeLog
from kt_es.node.store.records import Proposed
from kt_es.node.store.rocks import RocksStorage
from kt_es.node.store.storage import from_u64
from kt_es.node.store.streams import Expected

OTHER = replace(GroupSettings(), max_retry_count=1)
CHANGES: list[Callable[[Groups], Awaitable[None]]] = [
    lambda groups: groups.update("s", "g", OTHER),
    lambda groups: groups.restart(),
]


@pytest.mark.parametrize("change", CHANGES, ids=["updated", "restarted"])
def test_a_group_that_is_deleted_meanwhile_stays_deleted(
    tmp_path: Path, change: Callable[[Groups], Awaitable[None]]
) -> None:
    async def scenario() -> tuple[int, int]:
        log = NodeLog(RocksStorage(tmp_path), lambda: 0.0, lambda _error: None)
        groups = Groups(log)
        await groups.create("s", "g", GroupSettings())
        await asyncio.gather(change(groups), groups.delete("s", "g"))
        known, kept = len(groups.all()), len(Groups(log).all())
        await groups.close()
        await log.close()
        return known, kept

    assert asyncio.run(scenario()) == (0, 0)


@pytest.mark.parametrize(("done", "place"), [(2, 0), (3, 3), (4, 3)])
@pytest.mark.parametrize("change", [*CHANGES, Groups.close], ids=["updated", "restarted", "stopped"])
def test_a_group_goes_on_at_its_last_checkpoint(
    tmp_path: Path, change: Callable[[Groups], Awaitable[None]], done: int, place: int
) -> None:
    """A checkpoint that is being written at the moment counts; none is written for the occasion."""

    async def scenario() -> tuple[int, int]:
        log = NodeLog(RocksStorage(tmp_path), lambda: 0.0, lambda _error: None)
        events = [Proposed(str(UUID(int=number)), "T", "x", b"", b"") for number in range(5)]
        await log.append("s", Expected.NO_STREAM, events)
        groups = Groups(log)
        await groups.create(
            "s", "g", replace(GroupSettings(), max_checkpoint_count=3, min_checkpoint_count=3)
        )
        runner, consumer = groups.get("s", "g"), Consumer(50, lambda: None)
        runner.connect(consumer)
        runner.pump()
        for event in events[:done]:
            runner.ack(consumer, [event.id])
        await change(groups)
        stored = log.storage.get(checkpoint_key("s", "g"))
        again = Groups(log).get("s", "g").group.progress.cursor
        await groups.close()
        await log.close()
        return from_u64(stored or b""), again

    assert asyncio.run(scenario()) == (place, place)
