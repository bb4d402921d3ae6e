"""All persistent subscriptions of a node: creation, changes, deletion, and loading at a start."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from kt_es.node.groups.runner import GroupRunner
from kt_es.node.groups.settings import (
    GroupSettings,
    checkpoint_key,
    decode_settings,
    encode_settings,
    group_names,
    groups_range,
    parked_stream,
    settings_key,
)
from kt_es.node.refusals import group_exists, group_failed, group_missing, too_many_groups
from kt_es.node.store.log import NodeLog
from kt_es.node.store.storage import NoSpaceError, from_u64, u64
from kt_es.node.store.streams import ALL_NAME
from kt_es.node.store.transaction import Transaction


class Groups:
    """All persistent subscriptions of a node, at most ``limit``."""

    def __init__(self, log: NodeLog, limit: int = 10_000) -> None:
        self._log = log
        self.limit = limit
        self._runners: dict[tuple[str, str], GroupRunner] = {}
        # One change at a time: two changes of one group must not overlap while they wait for the disk.
        self._changing = asyncio.Lock()
        for key, value in log.storage.scan(*groups_range()):
            stream, name = group_names(key)
            settings = decode_settings(value)
            stored = log.storage.get(checkpoint_key(stream, name))
            cursor = max(settings.start, 0) if stored is None else from_u64(stored)
            # The origin of a group from the end is not stored: every checkpoint then counts as progress.
            origin = settings.start if settings.start >= 0 else None
            self._start(stream, name, settings, cursor, origin)

    def _start(
        self, stream: str, name: str, settings: GroupSettings, cursor: int, origin: int | None
    ) -> None:
        self._runners[stream, name] = GroupRunner(self._log, stream, name, settings, cursor, origin=origin)

    def get(self, stream: str, name: str) -> GroupRunner:
        """Return the group of that name; raise ``Refusal`` if there is none."""
        runner = self._runners.get((stream, name))
        if runner is None:
            raise group_missing(stream, name)
        return runner

    def all(self, stream: str | None = None) -> list[GroupRunner]:
        """Return all groups, or those of one stream."""
        return [runner for key, runner in self._runners.items() if stream is None or key[0] == stream]

    async def create(self, stream: str, name: str, settings: GroupSettings) -> None:
        """Create a group.

        This method and the methods below raise ``Refusal`` if the request is impossible, and ``NoSpaceError``
        if the disk is full. The groups then stay as they are.
        """
        async with self._changing:
            if (stream, name) in self._runners:
                raise group_exists(stream, name)
            if len(self._runners) >= self.limit:
                raise too_many_groups(self.limit)
            self._check(stream, name, settings)

            def command(tx: Transaction) -> int | None:
                if tx.staged_or_stored(settings_key(stream, name)):
                    return None
                return _stage(tx, stream, name, settings, moved=True)

            cursor = await self._log.run(command)
            if cursor is None:
                raise group_exists(stream, name)
            self._start(stream, name, settings, cursor, cursor)

    def _check(self, stream: str, name: str, settings: GroupSettings) -> None:
        if stream == ALL_NAME and settings.start > self._log.position:
            raise group_failed(
                stream, name, f"Invalid Start From position: the log ends at {self._log.position}"
            )
        if settings.read_batch_size >= settings.history_buffer_size:
            raise group_failed(stream, name, "The read batch has to be smaller than the history buffer")

    async def update(self, stream: str, name: str, settings: GroupSettings) -> None:
        """Change the settings of a group. Its consumers are dropped, and may connect again.

        The group resumes at its last written checkpoint: later messages are delivered again, whether they
        were acknowledged or not.
        Another ``settings.start`` counts only if there is no checkpoint. The filter stays: requests cannot
        change it.
        """
        async with self._changing:
            old = self.get(stream, name)
            self._check(stream, name, settings)
            settings = replace(settings, filter=old.settings.filter)
            await old.close()
            moved = settings.start != old.settings.start and not old.checkpointed
            try:
                cursor = await self._log.run(lambda tx: _stage(tx, stream, name, settings, moved))
            except NoSpaceError:
                self._again(old)
                raise
            at, origin = (old.group.progress.checkpoint, old.origin) if cursor is None else (cursor, cursor)
            self._start(stream, name, settings, at, origin)

    async def delete(self, stream: str, name: str) -> None:
        """Delete a group with its checkpoint and its parked messages."""
        async with self._changing:
            runner = self.get(stream, name)
            del self._runners[stream, name]
            runner.end()
            parked = parked_stream(stream, name)

            def command(tx: Transaction) -> None:
                tx.delete(settings_key(stream, name))
                tx.delete(checkpoint_key(stream, name))
                if tx.head(parked).exists:
                    tx.delete_stream(parked)

            try:
                await self._log.run(command)
            except NoSpaceError:
                self._again(runner)
                raise

    def _again(self, old: GroupRunner) -> None:
        """Replace ``old`` by a group with the same settings that resumes at its checkpoint."""
        self._start(old.stream, old.name, old.settings, old.group.progress.checkpoint, old.origin)

    async def restart(self) -> None:
        """Drop all consumers; every group resumes at its checkpoint."""
        async with self._changing:
            for old in list(self._runners.values()):
                await old.close()
                self._again(old)

    async def close(self) -> None:
        await asyncio.gather(*(runner.close() for runner in self._runners.values()))


def _stage(tx: Transaction, stream: str, name: str, settings: GroupSettings, moved: bool) -> int | None:
    """Stage settings and, if ``moved``, the order to start from, which is returned."""
    tx.put(settings_key(stream, name), encode_settings(settings))
    if not moved:
        return None
    cursor = settings.start
    if cursor < 0:
        cursor = tx.position + 1 if stream == ALL_NAME else tx.head(stream).last + 1
    tx.put(checkpoint_key(stream, name), u64(cursor))
    return cursor
