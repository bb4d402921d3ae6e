"""The shell around ``group.Group``: reads for a group, parks, writes checkpoints, keeps time.

A group works only while somebody is connected; otherwise it costs its settings in memory. While the disk is
full it goes on, and what it has to write waits: after a kill it goes on at the last checkpoint on disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import structlog

from kt_es.node.groups.group import Group
from kt_es.node.groups.pins import pinner
from kt_es.node.groups.sources import AllSource, Source, StreamSource
from kt_es.node.groups.stored import (
    checkpoint_key,
    parked_stream,
)
from kt_es.node.groups.values import Action, Consumer, Delivery, Message, Settings
from kt_es.node.refusals import group_dropped, group_full
from kt_es.node.store.database import NoSpaceError, StorageError
from kt_es.node.store.links import LINK, resolve
from kt_es.node.store.log import EventLog
from kt_es.node.store.metadata import link_event
from kt_es.node.store.reading import forwards, stored_at
from kt_es.node.store.records import Proposed, id_of, name_of, parsed, respelled, revision_of, type_of
from kt_es.node.store.streams import ALL_NAME
from kt_es.node.store.transaction import Transaction, u64

_LOG = structlog.get_logger("kt_es.node")
PUMP_CHUNKS = 2  # chunks a group reads before others have their turn
PENDING = 500  # writes that wait for the disk; nothing more is read behind them
REPLAY_AHEAD = 500  # parked messages that wait to be delivered again; more are read when these are gone


class GroupRunner:
    """One group at work."""

    def __init__(
        self,
        log: EventLog,
        stream: str,
        name: str,
        settings: Settings,
        cursor: int,
        *,
        origin: int | None,
    ) -> None:
        """``origin`` is where the group began, unless it has had a checkpoint behind that already."""
        self.stream = stream
        self.name = name
        self.settings = settings
        self.origin = origin
        self._log = log
        self._loop = asyncio.get_running_loop()
        self.group = Group(settings, cursor, self._loop.time())
        self._pin = pin = pinner(log, settings.strategy)
        self._source: Source = (
            AllSource(log, settings.filter, pin) if stream == ALL_NAME else StreamSource(log, stream, pin)
        )
        self._parked = parked_stream(stream, name)
        self._replaying: set[int] = set()
        self._replayed: set[int] = set()
        self._to_replay = range(0)  # revisions of parked messages yet to be read
        self._replay_limit = 0
        self._timer: asyncio.TimerHandle | None = None
        self._soon: asyncio.Handle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_checkpointing = False
        self._closed = False  # no more work is begun
        self._ended = asyncio.Event()  # as ``_closed``, for those who wait
        self._deleted = False  # nothing is written, even what was begun

    # --- consumers -----------------------------------------------------------------------------

    def connect(self, consumer: Consumer) -> None:
        """Admit ``consumer``, whom the next ``pump`` serves.

        Raises:
            Refusal: the group is full, or is being changed.
        """
        if self._closed:
            raise group_dropped(self.stream, self.name)
        if not self.group.connect(consumer, self.now):
            raise group_full(self.stream, self.name)
        if len(self.group.consumers) == 1:
            self._log.wakeups.add(self._source.wakes_on, self.pump)

    def disconnect(self, consumer: Consumer) -> None:
        """``consumer`` is gone."""
        self.group.disconnect(consumer)
        if not self.group.consumers:
            self._log.wakeups.remove(self._source.wakes_on, self.pump)
        self.pump()

    def ack(self, consumer: Consumer, ids: Iterable[str]) -> None:
        """``consumer`` has processed these."""
        self.group.ack(consumer, ids)
        self.pump()

    def nack(self, consumer: Consumer, ids: Iterable[str], action: Action) -> None:
        """``consumer`` could not process these."""
        self.group.nack(consumer, ids, action)
        self.pump()

    def sent(self, delivery: Delivery) -> None:
        """``delivery`` has gone out."""
        self.group.sent(delivery)

    def payload(self, delivery: Delivery) -> bytes | None:
        """The stored event to send, or ``None`` if it is gone or was taken back meanwhile."""
        if not self.group.is_current(delivery):
            return None
        message = delivery.message
        stored = message.payload or self._load(message)
        if stored is None:
            self.group.gone(delivery)
            # There is room for others now, which nothing else may say for long.
            self._pump_soon()
            return None
        if message.parked >= 0 or self.settings.resolve_links:
            event = resolve(self._log, stored)
            if event is not None:
                return respelled(event)
        return stored

    def _load(self, message: Message) -> bytes | None:
        if message.parked >= 0:
            return stored_at(self._log, self._parked, message.parked)
        return self._source.load(message.order)

    # --- work ----------------------------------------------------------------------------------

    def pump(self) -> None:
        """Do whatever can be done now: read, deliver, take back, park, checkpoint."""
        if self._closed:
            return
        try:
            self._pump()
        except StorageError:
            raise  # the node stops
        except Exception as error:  # noqa: BLE001  whatever it is
            # No fault of the node's: others go on. Whoever reads this group is told, and does not wait.
            _LOG.exception("a group cannot go on", stream=self.stream, group=self.name, reason=repr(error))
            self._drop()

    def _pump(self) -> None:
        group, now = self.group, self._loop.time()
        group.expire(now)
        self._read_parked()
        group.dispatch(now)
        for _ in range(PUMP_CHUNKS):
            room = group.room()
            if room == 0 or len(self._tasks) >= PENDING:
                break
            batch = self._source.read(group.progress.cursor, min(room, max(self.settings.read_batch_size, 1)))
            group.push(batch.messages, batch.following, batch.passed_over)
            # At once: who takes many without acknowledging would wait for the next ones for ever.
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
        """Once more when others have had their turn; once, however often it is asked for."""
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
            self._replayed.update(unparked)
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
            # The group ended while the disk was full: what was settled since its checkpoint comes again.
            _LOG.info("a group's state was not written", stream=self.stream, group=self.name)
        except StorageError as error:
            _LOG.error(
                "a group's state was not written", stream=self.stream, group=self.name, reason=str(error)
            )

    async def _run(self, command: Callable[[Transaction], None]) -> None:
        """Run ``command`` on the log; while the disk is full, wait for space.

        Raises:
            StorageError: the disk failed, or the group ended before there was space.
        """
        while True:
            try:
                await self._log.run(command)
            except NoSpaceError:
                if self._closed:
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
            link = _link_to(stored, replayed=message.parked >= 0)

            def command(tx: Transaction) -> None:
                if not self._deleted:
                    tx.append(self._parked, [link])

            await self._run(command)
        self.group.parked(message)
        self.pump()

    async def _trim_parked(self) -> None:
        first = self._log.head(self._parked).first
        keep = first
        while keep in self._replayed:
            keep += 1
        if keep == first:
            return

        def command(tx: Transaction) -> None:
            if not self._deleted and tx.head(self._parked).truncate_before < keep:
                tx.rewrite_metadata(self._parked, keep)

        await self._run(command)
        done = set(range(first, keep))
        self._replayed -= done
        self._replaying -= done

    async def _write_checkpoints(self) -> None:
        """Write the checkpoint, and the later ones that came to be meanwhile."""
        progress, written = self.group.progress, -1

        def command(tx: Transaction) -> None:
            nonlocal written
            written = progress.checkpoint
            if not self._deleted:
                tx.put(checkpoint_key(self.stream, self.name), u64(written))

        try:
            while written != progress.checkpoint:
                await self._run(command)
        finally:
            self._is_checkpointing = False

    @property
    def now(self) -> float:
        """Seconds of the clock by which the group works."""
        return self._loop.time()

    @property
    def checkpointed(self) -> bool:
        """There is a checkpoint, beyond the place where the group began."""
        return self.group.progress.checkpoint != self.origin

    # --- parked messages -----------------------------------------------------------------------

    @property
    def parked_count(self) -> int:
        """Messages that are parked and were not replayed to the end."""
        head = self._log.head(self._parked)
        return max(0, head.last - head.first + 1 - len(self._replayed)) if head.exists else 0

    def replay(self, limit: int | None) -> None:
        """Deliver what is parked now again, at most ``limit`` messages."""
        head = self._log.head(self._parked)
        count = head.last - head.first + 1
        asked = count if limit is None else limit
        self._replay_limit = asked + (self._replay_limit if self._to_replay else 0)
        self._to_replay = range(self._to_replay.start if self._to_replay else head.first, head.last + 1)
        self.pump()

    def _read_parked(self) -> None:
        """Queue the next parked messages that are to be replayed, a few at a time."""
        while self._to_replay and self._replay_limit > 0 and self.group.retrying < REPLAY_AHEAD:
            chunk = forwards(self._log, self._parked, self._to_replay.start)
            revisions = {revision_of(stored): stored for stored in chunk.events}
            fresh = [at for at in revisions if at in self._to_replay and at not in self._replaying]
            fresh = fresh[: self._replay_limit]
            self._replay_limit -= len(fresh)
            self._replaying.update(fresh)
            self._to_replay = range(chunk.following, self._to_replay.stop) if chunk.more else range(0)
            self.group.replay(
                Message(at, id_of(revisions[at]), parked=at, pin=self._pin(revisions[at])) for at in fresh
            )

    # --- ends ----------------------------------------------------------------------------------

    def end(self) -> None:
        """The group is deleted: its consumers are dropped, nothing more is written."""
        self._deleted = True
        self._stop()

    def _stop(self) -> None:
        self._drop()
        self._closed = True
        self._ended.set()
        if self._timer is not None:
            self._timer.cancel()
        self._log.wakeups.remove(self._source.wakes_on, self.pump)

    def _drop(self) -> None:
        self.group.drop_all()
        for consumer in self.group.take_awake():
            consumer.wake()

    async def close(self) -> None:
        """The group is replaced, or the node stops. What is being written is written to the end.

        No checkpoint is written, so what was acknowledged since the last one will be delivered again.
        """
        self._stop()
        if self._tasks:
            await asyncio.gather(*self._tasks)


def _link_to(stored: bytes, *, replayed: bool) -> Proposed:
    """The link under which an event is parked; one that was replayed is a link already."""
    if replayed and type_of(stored) == LINK:
        revision, _, name = parsed(stored).event.data.decode().partition("@")
        return link_event(int(revision), name)
    return link_event(revision_of(stored), name_of(stored))
