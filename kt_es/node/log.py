"""The log: commands in, group commits to disk, durable heads for readers.

Everything runs on the event loop's thread except the sync, which has a thread of its own: commands that
arrive while it runs are decided together afterwards and share the next one. A command's answer is given
after the sync, so nothing is acknowledged, and nothing can be read, that is not on disk.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import structlog

from kt_es.node.metadata import tombstone_event
from kt_es.node.records import Proposed, position_of
from kt_es.node.storage import Storage, StorageError
from kt_es.node.streams import (
    LAST_REVISION,
    Accept,
    Decision,
    Deleted,
    Duplicate,
    Expected,
    Head,
    Wrong,
    decide,
    decide_delete,
)
from kt_es.node.transaction import POSITION_KEY, Transaction, from_u64, head_key
from kt_es.node.wakeups import Wakeups

_LOG = structlog.get_logger("kt_es.node")
Answer = TypeVar("Answer")
HEADS_KEPT = 50_000  # in memory; others are read from storage when needed
BATCH_BYTES = 8 << 20  # what one group commit takes in
QUEUE_BYTES = 64 << 20  # what may wait for it; writers beyond that are held back


@dataclass(frozen=True, slots=True)
class Appended:
    """The stream's last revision and the last position that the append wrote (0: nothing)."""

    revision: int
    position: int


@dataclass(slots=True)
class _Command:
    run: Callable[[Transaction], object]
    size: int
    answer: asyncio.Future[object]


class EventLog:
    """Streams over a storage.

    ``clock`` gives seconds since 1970. ``on_failure`` is called once, with the reason, when storage has
    refused a write; from then on every command fails with ``StorageError``.
    """

    def __init__(
        self, storage: Storage, clock: Callable[[], float], on_failure: Callable[[StorageError], None]
    ) -> None:
        self.storage = storage
        self.clock = clock
        self.wakeups = Wakeups()
        self.position = self._stored_position()
        self._on_failure = on_failure
        self._heads: OrderedDict[str, Head] = OrderedDict()
        self._held: dict[str, Head] = {}  # durable heads of the streams that are being written
        self._queue: list[_Command] = []
        self._queued_bytes = 0
        self._room = asyncio.Event()
        self._work = asyncio.Event()
        self._failure: StorageError | None = None
        self._closing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kt-node-sync")

    def _stored_position(self) -> int:
        value = self.storage.get(POSITION_KEY)
        return 0 if value is None else from_u64(value)

    def head(self, name: str) -> Head:
        """The durable head of a stream; that of a missing one is ``Head()``."""
        held = self._held.get(name)
        if held is not None:
            return held
        head = self._heads.get(name)
        if head is None:
            value = self.storage.get(head_key(name))
            head = Head() if value is None else Head.decode(value)
            self._remember(name, head)
        return head

    def _remember(self, name: str, head: Head) -> None:
        heads = self._heads
        heads[name] = head
        heads.move_to_end(name)
        if len(heads) > HEADS_KEPT:
            heads.popitem(last=False)

    async def run(self, command: Callable[[Transaction], Answer], size: int = 0) -> Answer:
        """Run ``command`` in the next group commit; its answer, once everything it staged is on disk.

        ``size`` is what it holds in memory, in bytes.

        Raises:
            StorageError: the disk refused; whether the command took effect is unknown.
        """
        while self._queued_bytes > QUEUE_BYTES and self._failure is None:
            self._room.clear()
            await self._room.wait()
        if self._failure is not None or self._closing:
            raise self._failure or StorageError("the node is shutting down")
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._queue.append(_Command(command, size, answer))
        self._queued_bytes += size
        self._work.set()
        return await answer  # type: ignore[return-value]

    async def append(
        self, name: str, expected: int | Expected, events: Sequence[Proposed], size: int = 0
    ) -> Appended | Wrong | Deleted:
        """Append ``events`` to stream ``name`` if it is as expected (``streams.decide``)."""
        ids = [event.id for event in events]

        def command(tx: Transaction) -> Appended | Wrong | Deleted:
            head = tx.head(name)
            decision: Decision = decide(expected, head, ids, tx.id_at(head), tx.revision_of(head))
            match decision:
                case Accept() if events:
                    return Appended(decision.revision + len(events) - 1, tx.append(name, events))
                case Accept():
                    return Appended(head.last, 0)
                case Duplicate(last):
                    return Appended(last, _position_at(tx, head, last))
                case _:
                    return decision

        return await self.run(command, size)

    async def delete(self, name: str, expected: int | Expected, hard: bool) -> Appended | Wrong | Deleted:
        """Delete stream ``name``: hidden, with numbering that goes on, or (``hard``) for good."""

        def command(tx: Transaction) -> Appended | Wrong | Deleted:
            head = tx.head(name)
            decision = decide_delete(expected, head, hard)
            if not isinstance(decision, Accept):
                return decision if isinstance(decision, Wrong) else Deleted()
            if hard:
                return Appended(LAST_REVISION, tx.append(name, [tombstone_event()], LAST_REVISION))
            if head.deleted:
                return Appended(head.last, 0)
            return Appended(head.last, tx.rewrite_metadata(name, LAST_REVISION))

        return await self.run(command)

    async def commit_forever(self) -> None:
        """Decide, write, sync, answer, until ``close``. Run as a task of its own."""
        loop = asyncio.get_running_loop()
        while True:
            await self._work.wait()
            self._work.clear()
            while self._queue:
                batch = self._take()
                try:
                    tx, answers = self._decided(batch)
                    if tx.puts or tx.deletes:
                        tx.finish()
                        self._held = {name: self.head(name) for name in tx.heads}
                        self.storage.write(tx.puts, tx.deletes)
                        await loop.run_in_executor(self._thread, self.storage.sync)
                except StorageError as error:
                    self._fail(error, batch)
                    return
                self._publish(tx)
                for command, value in zip(batch, answers, strict=True):
                    if not command.answer.done():
                        command.answer.set_result(value)
            if self._closing:
                return

    def _take(self) -> list[_Command]:
        size, count = 0, 0
        for command in self._queue:
            if count and size + command.size > BATCH_BYTES:
                break
            size += command.size
            count += 1
        batch, self._queue = self._queue[:count], self._queue[count:]
        self._queued_bytes -= size
        self._room.set()
        return batch

    def _decided(self, batch: Sequence[_Command]) -> tuple[Transaction, list[object]]:
        tx = Transaction(self.storage, self.head, self.position, int(self.clock() * 10_000_000))
        return tx, [command.run(tx) for command in batch]

    def _publish(self, tx: Transaction) -> None:
        self._held = {}
        self.position = tx.position
        for name, head in tx.heads.items():
            self._remember(name, head)
        if tx.heads:
            self.wakeups.grown(tx.heads)

    def _fail(self, error: StorageError, batch: Sequence[_Command]) -> None:
        _LOG.critical("the disk refused a write; stopping", reason=str(error))
        self._failure = error
        self._room.set()
        for command in (*batch, *self._queue):
            if not command.answer.done():
                command.answer.set_exception(error)
        self._queue.clear()
        self._on_failure(error)

    def close(self) -> None:
        """Take no more commands; what is queued is still committed."""
        self._closing = True
        self._work.set()

    def release(self) -> None:
        """After ``commit_forever`` has returned: give the thread and the storage back."""
        self._thread.shutdown()
        self.storage.close()


def _position_at(tx: Transaction, head: Head, revision: int) -> int:
    stored = tx.stored(head, revision)
    return 0 if stored is None else position_of(stored)
