"""The shell around ``group.Group``: it reads messages, parks them, writes checkpoints and keeps time.

A group works only while a consumer is connected; otherwise only its settings take memory. While the disk is
full a group continues to work, and its writes wait. After a kill it resumes at the last checkpoint on disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import structlog

from kt_es.node.groups.group import Group
from kt_es.node.groups.messages import Consumer, Delivery, Message, NackAction
from kt_es.node.groups.settings import GroupSettings, checkpoint_key
from kt_es.node.groups.sources import AllSource, Parked, StreamSource, link_to, pinner
from kt_es.node.refusals import group_dropped, group_full
from kt_es.node.store.log import NodeLog
from kt_es.node.store.reading import resolve
from kt_es.node.store.records import respelled
from kt_es.node.store.storage import NoSpaceError, StorageError, u64
from kt_es.node.store.streams import ALL_NAME
from kt_es.node.store.transaction import Transaction

_LOG = structlog.get_logger("kt_es.node")
PUMP_CHUNKS = 2  # chunks a group reads before others have their turn
PENDING = 500  # writes that wait for the disk; while there are so many, nothing more is read


class GroupRunner:
    """One group at work, on the event loop's thread."""

    def __init__(
        self,
        log: NodeLog,
        stream: str,
        name: str,
        settings: GroupSettings,
        cursor: int,
        *,
        origin: int | None,
    ) -> None:
        """Begin at ``cursor``. ``origin`` is the first order of the group, None after a later checkpoint."""
        self.stream = stream
        self.name = name
        self.settings = settings
        self.origin = origin
        self._log = log
        self._loop = asyncio.get_running_loop()
        self.group = Group(settings, cursor, self._loop.time())
        pin = pinner(log, settings.strategy)
        self._source: StreamSource | AllSource = StreamSource(log, stream, pin)
        if stream == ALL_NAME:
            self._source = AllSource(log, settings.filter, pin)
        self.parked = Parked(log, stream, name, pin)
        self._timer: asyncio.TimerHandle | None = None
        self._soon: asyncio.Handle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_checkpointing = False
        self._ended = asyncio.Event()  # no more work is begun
        self._deleted = False  # nothing more is written, not even by work that was begun

    def connect(self, consumer: Consumer) -> None:
        """Admit ``consumer``, for the next ``pump``; raise ``Refusal`` if the group is full or has ended."""
        if self._ended.is_set():
            raise group_dropped(self.stream, self.name)
        if not self.group.connect(consumer, self.now):
            raise group_full(self.stream, self.name)
        if len(self.group.consumers) == 1:
            self._log.wakeups.add(self._source.wakes_on, self.pump)

    def disconnect(self, consumer: Consumer) -> None:
        self.group.disconnect(consumer)
        if not self.group.consumers:
            self._log.wakeups.remove(self._source.wakes_on, self.pump)
        self.pump()

    def ack(self, consumer: Consumer, ids: Iterable[str]) -> None:
        self.group.ack(consumer, ids)
        self.pump()

    def nack(self, consumer: Consumer, ids: Iterable[str], action: NackAction) -> None:
        self.group.nack(consumer, ids, action)
        self.pump()

    def payload(self, delivery: Delivery) -> bytes | None:
        """Return the stored event to send, or ``None`` if it is gone or was taken back meanwhile."""
        if not self.group.is_current(delivery):
            return None
        message = delivery.message
        stored = message.payload or self._load(message)
        if stored is None:
            self.group.gone(delivery)
            # Other messages have room now, and perhaps nothing else calls ``pump`` for a long time.
            self._pump_soon()
            return None
        if message.parked >= 0 or self.settings.resolve_links:
            event = resolve(self._log, stored)
            if event is not None:
                return respelled(event)
        return stored

    def _load(self, message: Message) -> bytes | None:
        if message.parked >= 0:
            return self.parked.load(message.parked)
        return self._source.load(message.order)

    def pump(self) -> None:
        """Do all that can be done now: read, deliver, take back, park, checkpoint."""
        if self._ended.is_set():
            return
        try:
            self._pump()
        except StorageError:
            raise  # the node stops
        except Exception as error:  # noqa: BLE001  whatever it is
            # The fault concerns this group only. Its consumers are dropped, so that they do not wait in vain.
            _LOG.exception("a group cannot go on", stream=self.stream, group=self.name, reason=repr(error))
            self._drop()

    def _pump(self) -> None:
        group, now = self.group, self.now
        group.expire(now)
        group.replay(self.parked.read(group.retrying))
        group.dispatch(now)
        for _ in range(PUMP_CHUNKS):
            room = group.room()
            if room == 0 or len(self._tasks) >= PENDING:
                break
            batch = self._source.read(group.progress.cursor, min(room, max(self.settings.read_batch_size, 1)))
            group.push(batch.messages, batch.following, batch.passed_over)
            # At once: a consumer that takes many without acknowledging would wait for ever.
            group.dispatch(now)
            if not batch.more:
                break
        else:
            self._pump_soon()
        for consumer in group.take_awake():
            consumer.wake()
        self._settle_effects(now)
        self._set_timer(now)

    def _pump_soon(self) -> None:
        """Call ``pump`` once after other tasks have had their turn, however often this is called."""
        if self._soon is None:
            self._soon = self._loop.call_soon(self._pump_now)

    def _pump_now(self) -> None:
        self._soon = None
        self.pump()

    def _settle_effects(self, now: float) -> None:
        for message in self.group.take_parking():
            self._spawn(self._park(message))
        unparked = self.group.take_unparked()
        if unparked:
            self.parked.settle(unparked)
            self._spawn(self._trim_parked())
        due = self.group.progress.due(now)
        if due is not None:
            self.group.progress.written(due, now)
            if not self._is_checkpointing:
                self._is_checkpointing = True
                self._spawn(self._write_checkpoints())

    def _set_timer(self, now: float) -> None:
        when = self.group.next_deadline(now)
        if self._timer is not None:
            if when is not None and self._timer.when() <= when and not self._timer.cancelled():
                return
            self._timer.cancel()
            self._timer = None
        if when is not None:
            self._timer = self._loop.call_at(when, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self.pump()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(self._logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _logged(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except NoSpaceError:
            # The disk was full when the group ended: messages after the checkpoint are delivered again.
            _LOG.info("a group's state was not written", stream=self.stream, group=self.name)
        except StorageError as error:
            reason = str(error)
            _LOG.error("a group's state was not written", stream=self.stream, group=self.name, reason=reason)

    async def _run(self, stage: Callable[[Transaction], None]) -> None:
        """Write what ``stage`` stages unless the group is deleted; while the disk is full, wait for space.

        Raises ``StorageError`` if the disk failed, or the group ended before there was space.
        """

        def command(tx: Transaction) -> None:
            if not self._deleted:
                stage(tx)

        while True:
            try:
                await self._log.run(command)
            except NoSpaceError:
                if self._ended.is_set():
                    raise
                await self._space()
            else:
                return

    async def _space(self) -> None:
        """Return once the disk has space, or the group has ended."""
        either = [asyncio.ensure_future(wait()) for wait in (self._log.outage.over, self._ended.wait)]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        for waiting in either:
            waiting.cancel()

    async def _park(self, message: Message) -> None:
        stored = message.payload or self._load(message)
        if stored is not None:
            link = link_to(stored, replayed=message.parked >= 0)
            await self._run(lambda tx: self.parked.park(tx, link))
        self.group.settle(message)
        self.pump()

    async def _trim_parked(self) -> None:
        keep = self.parked.trimmed()
        if keep is not None:
            await self._run(lambda tx: self.parked.trim(tx, keep))
            self.parked.forget(keep)

    async def _write_checkpoints(self) -> None:
        """Write the checkpoint, and then later ones that were reached meanwhile."""
        progress, written = self.group.progress, -1

        def stage(tx: Transaction) -> None:
            nonlocal written
            written = progress.checkpoint
            tx.put(checkpoint_key(self.stream, self.name), u64(written))

        try:
            while written != progress.checkpoint and not self._deleted:
                await self._run(stage)
        finally:
            self._is_checkpointing = False

    @property
    def now(self) -> float:
        return self._loop.time()

    @property
    def checkpointed(self) -> bool:
        """Whether there is a checkpoint after the order where the group began."""
        return self.group.progress.checkpoint != self.origin

    def replay(self, limit: int | None) -> None:
        self.parked.replay(limit)
        self.pump()

    def end(self) -> None:
        """Drop the consumers of the group, which is deleted, and write nothing more."""
        self._deleted = True
        self._stop()

    def _stop(self) -> None:
        self._drop()
        self._ended.set()
        if self._timer is not None:
            self._timer.cancel()
        self._log.wakeups.remove(self._source.wakes_on, self.pump)

    def _drop(self) -> None:
        self.group.drop_all()
        for consumer in self.group.take_awake():
            consumer.wake()

    async def close(self) -> None:
        """Finish the writes that were begun. The group is replaced, or the node stops.

        No checkpoint is written, so messages that were acknowledged since the last one are delivered again.
        """
        self._stop()
        if self._tasks:
            await asyncio.gather(*self._tasks)
