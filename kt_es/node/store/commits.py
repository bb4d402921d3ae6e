"""Group commit: commands that arrive while one sync runs are decided together and share the next.

Everything runs on the event loop's thread, with one exception: a sync that may take long runs on a thread of
its own and does not hold the GIL. Between a write and the end of its sync nothing else is written. So a
failed sync leaves one batch in doubt, and no command of this batch was answered.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol, TypeVar

import structlog

from kt_es.node.store.database import DiskOutage
from kt_es.node.store.storage import NodeStorage, NoSpaceError, StorageError
from kt_es.node.store.transaction import Transaction

_LOG = structlog.get_logger("kt_es.node")
Answer = TypeVar("Answer")
BATCH_BYTES = 8 << 20  # of the commands of one group commit
QUEUE_BYTES = 64 << 20  # of the commands that wait; writers beyond that are held back
QUICK = 0.001  # seconds; the event loop's thread waits for syncs that take less on average
_WEIGHT = 1 / 16  # of the latest sync in the average


class State(Protocol):
    """The state of the log, which the commits change."""

    def begin(self) -> Transaction:
        """Return a transaction on what is durable."""

    def hold(self, tx: Transaction) -> None:
        """Keep the present state for readers, because ``tx`` is going to be written."""

    def release(self) -> None:
        """Drop the transaction that was held: it was not written, and nothing has changed."""

    def publish(self, tx: Transaction, seconds: float) -> None:
        """Show ``tx`` to readers: it is on disk, after a sync of ``seconds``. Raises nothing."""

    def announce(self, tx: Transaction) -> None:
        """Wake the readers that wait for events of ``tx``, which was published."""


@dataclass(slots=True)
class _Command:
    run: Callable[[Transaction], object]
    size: int
    answer: asyncio.Future[object]


@dataclass(slots=True)
class _Batch:
    commands: Sequence[_Command]
    answers: Sequence[object]
    tx: Transaction


class GroupCommit:
    """Runs commands in order. While ``outage`` is on, every command fails with ``NoSpaceError``.

    Args:
        storage: Where transactions are written.
        state: What they change.
        on_failure: Called once, with the reason, when storage has refused a write. From then on every command
            fails with ``StorageError``.
        clock: Gives seconds, never backwards.
    """

    def __init__(
        self,
        storage: NodeStorage,
        state: State,
        on_failure: Callable[[StorageError], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._storage = storage
        self._state = state
        self._on_failure = on_failure
        self._clock = clock
        # Average seconds of a sync. On a quick disk, handing the GIL between two threads costs more than
        # waiting on the loop. A disk counts as slow until its syncs show otherwise.
        self._sync_time = 16 * QUICK
        self._loop = asyncio.get_running_loop()
        self._queue: list[_Command] = []
        self._queued_bytes = 0
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._failure: StorageError | None = None
        self.outage = DiskOutage(storage, lambda error: self._fail(error, ()))
        self._closing = False
        self._to_sync: SimpleQueue[_Batch | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._sync_forever, name="kt-node-sync", daemon=True)
        self._thread.start()

    async def room(self) -> None:
        """Return when the queue has room. Called before more is read from a writer."""
        while self._queued_bytes > QUEUE_BYTES and self._failure is None:
            self._room.clear()
            await self._room.wait()

    async def run(self, command: Callable[[Transaction], Answer], size: int = 0) -> Answer:
        """Run ``command`` in the next group commit; return its answer once everything it staged is on disk.

        ``size`` is the memory that it holds, in bytes.

        Raises:
            NoSpaceError: The disk is full; the command took no effect.
            StorageError: The disk refused; it is unknown whether the command took effect.
        """
        await self.room()
        if self._failure is not None or self._closing:
            raise self._failure or StorageError("the node is shutting down")
        if self.outage.is_on:
            raise NoSpaceError
        answer: asyncio.Future[object] = self._loop.create_future()
        self._queue.append(_Command(command, size, answer))
        self._queued_bytes += size
        if self._idle.is_set():
            self._idle.clear()
            # Not at once: other tasks that are ready may add to the batch.
            self._loop.call_soon(self._commit)
        return await answer  # type: ignore[return-value]

    def _commit(self) -> None:
        while commands := self._take():
            try:
                batch = self._decide_and_write(commands)
            except NoSpaceError as error:
                self._refuse(error, commands)
                return
            except Exception as error:  # noqa: BLE001  a batch that cannot be written is in doubt
                self._fail(error, commands)
                return
            if batch.tx.changes:
                self._sync(batch)
                return
            self._answer(batch)
        self._idle.set()

    def _sync(self, batch: _Batch) -> None:
        if self._sync_time > QUICK:
            self._to_sync.put(batch)
            return
        try:
            seconds = self._timed_sync()
        except Exception as error:  # noqa: BLE001  nothing may be answered as durable
            self._fail(error, batch.commands)
            return
        self._synced(batch, seconds)

    def _timed_sync(self) -> float:
        began = self._clock()
        self._storage.sync()
        return self._clock() - began

    def _take(self) -> list[_Command]:
        size = count = 0
        for command in self._queue:
            if count and size + command.size > BATCH_BYTES:
                break
            size += command.size
            count += 1
        commands, self._queue = self._queue[:count], self._queue[count:]
        self._queued_bytes -= size
        self._room.set()
        return commands

    def _decide_and_write(self, commands: Sequence[_Command]) -> _Batch:
        batch = self._decide(commands)
        tx = batch.tx
        if tx.changes:
            tx.finish()
            self._state.hold(tx)
            self._storage.write(tx.puts, tx.deletes)
        return batch

    def _decide(self, commands: Sequence[_Command]) -> _Batch:
        """Run ``commands`` on one transaction. If one raises, it fails alone and the others start again."""
        tx, answers = self._state.begin(), list[object]()
        for at, command in enumerate(commands):
            try:
                answers.append(command.run(tx))
            except StorageError:
                raise
            except Exception as error:  # noqa: BLE001  nothing of the command is written
                _LOG.exception("a command could not be run", reason=repr(error))
                if not command.answer.done():
                    command.answer.set_exception(error)
                return self._decide([*commands[:at], *commands[at + 1 :]])
        return _Batch(commands, answers, tx)

    def _sync_forever(self) -> None:
        while (batch := self._to_sync.get()) is not None:
            try:
                seconds = self._timed_sync()
            except Exception as error:  # noqa: BLE001  as above
                self._loop.call_soon_threadsafe(self._fail, error, batch.commands)
                return
            self._loop.call_soon_threadsafe(self._synced, batch, seconds)

    def _synced(self, batch: _Batch, seconds: float) -> None:
        self._sync_time += (seconds - self._sync_time) * _WEIGHT
        self._state.publish(batch.tx, seconds)
        self._answer(batch)
        try:
            self._state.announce(batch.tx)
        except Exception as error:  # noqa: BLE001  readers were not woken, and would wait for ever
            self._fail(error, ())
            return
        if self._queue:
            # Not at once: callers that were answered may add to the batch, and other tasks get their turn.
            self._loop.call_soon(self._commit)
        else:
            self._idle.set()

    def _answer(self, batch: _Batch) -> None:
        for command, value in zip(batch.commands, batch.answers, strict=True):
            if not command.answer.done():
                command.answer.set_result(value)

    def _fail(self, error: Exception, commands: Sequence[_Command]) -> None:
        failure = error if isinstance(error, StorageError) else StorageError(f"internal error: {error!r}")
        _LOG.critical("nothing can be written any more; stopping", reason=str(failure), exc_info=error)
        if self._failure is None:
            self._failure = failure
            self._on_failure(failure)
        self._end(failure, commands)

    def _refuse(self, error: NoSpaceError, commands: Sequence[_Command]) -> None:
        self._state.release()
        self.outage.begin(error)
        self._end(error, commands)

    def _end(self, error: StorageError, commands: Sequence[_Command]) -> None:
        """Answer ``commands`` and all commands that wait with ``error``."""
        self._room.set()
        for command in (*commands, *self._queue):
            if not command.answer.done():
                command.answer.set_exception(error)
        self._queue.clear()
        self._queued_bytes = 0
        self._idle.set()

    async def close(self) -> None:
        """Accept no more commands; return when the queued ones are on disk."""
        self._closing = True
        await self._idle.wait()
        await self.outage.close()
        self._to_sync.put(None)
        self._thread.join()
