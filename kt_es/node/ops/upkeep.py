"""Upkeep of a node, running or stopped: backup, scavenge, metrics and health."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from kt_es.node.counts import Counts
from kt_es.node.groups.registry import Groups
from kt_es.node.ops.backup import backup
from kt_es.node.ops.control import Control, ask
from kt_es.node.ops.http import HttpOps
from kt_es.node.ops.metrics import MetricsPage
from kt_es.node.ops.scavenge import scavenge
from kt_es.node.store.log import NodeLog
from kt_es.node.store.rocks import RocksStorage, open_existing
from kt_es.node.store.storage import StorageError

_LOG = structlog.get_logger("kt_es.node")


class Upkeep:
    """What a running node does beside serving its clients, on its event loop."""

    def __init__(self, storage: RocksStorage, log: NodeLog, groups: Groups, counts: Counts) -> None:
        self._control = Control(
            storage.path,
            {
                "backup": lambda asked: _backup(storage, Path(str(asked.get("target")))),
                "scavenge": lambda _asked: _scavenge(storage, log),
            },
        )
        page = MetricsPage(counts, log, groups, storage.size)
        # A node whose disk has failed ends. One whose disk is full goes on, for reads only.
        self._http = HttpOps(
            asyncio.get_running_loop(),
            page.render,
            lambda: "the disk is full: writes are refused, reads go on" if log.outage.is_on else "",
        )

    async def start(self, http: tuple[str, int] | None) -> None:
        """Accept orders; serve metrics and health at ``http``, if given.

        Raises:
            ConfigError: that address cannot be listened on.
        """
        if http is not None:
            _LOG.info("serving metrics", address=self._http.start(*http))
        await self._control.start()

    async def close(self) -> None:
        """Give up what is under way, and stop."""
        await self._control.close()
        # Not on the loop: the threads of ``_http`` wait for answers of the loop.
        await asyncio.to_thread(self._http.close)


async def _backup(storage: RocksStorage, target: Path) -> dict[str, Any]:
    made = await asyncio.to_thread(backup, storage, target)
    return asdict(made)


async def _scavenge(storage: RocksStorage, log: NodeLog) -> dict[str, Any]:
    before = await asyncio.to_thread(storage.size)
    gone = await scavenge(log, storage.compact)
    after = await asyncio.to_thread(storage.size)
    return {
        "streams": gone.streams,
        "events": gone.events,
        "bytes": gone.bytes,
        "disk_before": before,
        "disk_after": after,
    }


def backup_of(data: Path, target: Path) -> dict[str, Any]:
    """Back ``data`` up to ``target``, whether a node runs on it or not.

    Raises:
        LockedError: the node that runs on it has no control socket.
        ConfigError, KtError: see ``backup.backup``.
    """
    done = ask(data, "backup", target=str(target.absolute()))
    if done is not None:
        return done
    storage = open_existing(data)
    try:
        return asdict(backup(storage, target))
    finally:
        storage.close()


def scavenge_of(data: Path) -> dict[str, Any]:
    """Scavenge ``data``, whether a node runs on it or not; return what was removed.

    Raises:
        LockedError: the node that runs on it has no control socket.
        ConfigError, KtError: the data cannot be opened, or the disk refused.
    """
    done = ask(data, "scavenge")
    return done if done is not None else asyncio.run(_scavenge_stopped(data))


async def _scavenge_stopped(data: Path) -> dict[str, Any]:
    storage = open_existing(data)
    failures: list[StorageError] = []
    log = NodeLog(storage, time.time, failures.append)
    try:
        return await _scavenge(storage, log)
    finally:
        await log.close()
