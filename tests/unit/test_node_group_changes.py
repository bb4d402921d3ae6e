"""Groups that are changed by several at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kt_es.node.groups.registry import Groups
from kt_es.node.groups.values import Settings
from kt_es.node.store.log import EventLog
from kt_es.node.store.storage import RocksStorage

OTHER = replace(Settings(), max_retry_count=1)
CHANGES: list[Callable[[Groups], Awaitable[None]]] = [
    lambda groups: groups.update("s", "g", OTHER),
    lambda groups: groups.restart(),
]


@pytest.mark.parametrize("change", CHANGES, ids=["updated", "restarted"])
def test_a_group_that_is_deleted_meanwhile_stays_deleted(
    tmp_path: Path, change: Callable[[Groups], Awaitable[None]]
) -> None:
    async def scenario() -> tuple[int, int]:
        log = EventLog(RocksStorage(tmp_path), lambda: 0.0, lambda _error: None)
        groups = Groups(log)
        await groups.create("s", "g", Settings())
        await asyncio.gather(change(groups), groups.delete("s", "g"))
        known, kept = len(groups.all()), len(Groups(log).all())
        await groups.close()
        await log.close()
        return known, kept

    assert asyncio.run(scenario()) == (0, 0)
