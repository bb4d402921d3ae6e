"""The log: streams to append to, their durable heads for readers, and wake-ups for those who follow a stream.

Every start checks that the log ends as it was written (``verify_end``), with a few reads whatever the size.

A wake-up tells only that a stream has grown, and carries no events. A slow subscriber continues to read from
storage when it can, so it takes the same memory as an idle one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from kt_es.node.store.commits import GroupCommit
from kt_es.node.store.records import Proposed, created_of, name_of, position_of, revision_of
from kt_es.node.store.storage import (
    HEADS,
    POSITION_KEY,
    RANGES,
    STREAMS_KEY,
    DamageError,
    NodeStorage,
    StorageError,
    after,
    decode_range,
    event_key,
    from_u64,
    head_key,
    head_name,
    range_key,
)
from kt_es.node.store.streams import (
    LAST_REVISION,
    Accept,
    Deleted,
    Duplicate,
    Expected,
    StreamHead,
    Wrong,
    decide,
    decide_delete,
)
from kt_es.node.store.transaction import Transaction, tombstone_event

ALL = ""  # the wake-ups of $all; no stream has an empty name
HEADS_KEPT = 50_000  # in memory; others are read from storage when needed
EVENT_COST = 512  # bytes of memory for a waiting event, beside its data


def verify_end(storage: NodeStorage) -> tuple[int, int, float | None]:
    """Check that the log ends where its counter says, with an event that matches the head of its stream.

    Returns the last position, the number of streams, and when the last event was appended, in seconds since
    1970 (``None`` if that event was scavenged or there is none).

    Raises ``DamageError`` if the log does not end so, ``StorageError`` if it cannot be read.
    """
    stored = storage.get(POSITION_KEY)
    position = 0 if stored is None else from_u64(stored)
    last = next(storage.scan(range_key(position), after(RANGES)), None)
    counted = storage.get(STREAMS_KEY)
    # Data of an old version have no count. The streams are counted once: the next write stores it.
    streams = sum(1 for _ in heads(storage)) if counted is None else from_u64(counted)
    if last is None:
        # The last event may have been scavenged.
        return position, streams, None
    first, end, number, revision = decode_range(*last)
    if end != position:
        raise DamageError(f"the log has events at position {end}, but its counter ends at {position}")
    at = revision + position - first
    event = storage.get(event_key(number, at))
    if event is None or position_of(event) != position or revision_of(event) != at:
        raise DamageError(f"the last event, at position {position}, is missing or was replaced")
    name = name_of(event)
    head = read_head(storage, name)
    if head.last != at or head.number != number:
        raise DamageError(f"the head of stream {name} does not match its last event, at position {position}")
    return position, streams, created_of(event) / 10_000_000


def read_head(storage: NodeStorage, name: str) -> StreamHead:
    """Return the head of a stream; that of a missing one is ``StreamHead()``."""
    value = storage.get(head_key(name))
    return StreamHead() if value is None else StreamHead.decode(value)


def heads(storage: NodeStorage) -> Iterator[tuple[str, StreamHead]]:
    """Name and head of every stream that ever had an event, by name."""
    for key, value in storage.scan(HEADS, after(HEADS)):
        head = StreamHead.decode(value)
        if head.number:
            yield head_name(key), head


@dataclass(frozen=True, slots=True)
class Appended:
    """The stream's last revision and the last position that the append wrote (0: nothing)."""

    revision: int
    position: int


class Wakeups:
    """Callbacks by stream name, on the event loop's thread."""

    def __init__(self) -> None:
        self._callbacks: dict[str, set[Callable[[], None]]] = {}

    def add(self, name: str, callback: Callable[[], None]) -> None:
        """Call ``callback`` after every durable append to stream ``name`` (``ALL``: to any)."""
        self._callbacks.setdefault(name, set()).add(callback)

    def remove(self, name: str, callback: Callable[[], None]) -> None:
        callbacks = self._callbacks.get(name)
        if callbacks is not None:
            callbacks.discard(callback)
            if not callbacks:
                del self._callbacks[name]

    def grown(self, names: Iterable[str]) -> None:
        """Call the callbacks of these streams, and of $all."""
        for name in (*names, ALL):
            for callback in tuple(self._callbacks.get(name, ())):
                callback()


class NodeLog:
    """Streams over a storage. Everything happens on the event loop's thread.

    ``position`` is the last durable position, 0 for an empty log. ``streams`` counts the streams that ever
    had an event. ``last_created`` is when the last event at the start was appended, in seconds since 1970;
    ``None`` if it could not be read. ``outage`` tells whether the disk is full.

    Args:
        storage: The log closes it.
        clock: Gives seconds since 1970.
        on_failure: See ``GroupCommit``.
        on_synced: Called after each group commit with the pairs that are on disk now, and the seconds of its
            sync.

    Raises as ``verify_end``.
    """

    def __init__(
        self,
        storage: NodeStorage,
        clock: Callable[[], float],
        on_failure: Callable[[StorageError], None],
        on_synced: Callable[[Sequence[tuple[bytes, bytes]], float], None] = lambda _puts, _seconds: None,
    ) -> None:
        self.storage = storage
        self.clock = clock
        self._on_synced = on_synced
        self.wakeups = Wakeups()
        self.position, self.streams, self.last_created = verify_end(storage)
        self._heads: OrderedDict[str, StreamHead] = OrderedDict()
        self._held: dict[str, StreamHead] = {}  # durable heads of the streams that are being written
        self._commits = GroupCommit(storage, self, on_failure)
        self.run, self.room = self._commits.run, self._commits.room
        self.outage = self._commits.outage

    def head(self, name: str) -> StreamHead:
        """Return the durable head of a stream; that of a missing one is ``StreamHead()``."""
        held = self._held.get(name)
        if held is not None:
            return held
        head = self._heads.get(name)
        if head is None:
            head = read_head(self.storage, name)
            self._remember(name, head)
        return head

    def _remember(self, name: str, head: StreamHead) -> None:
        heads = self._heads
        heads[name] = head
        heads.move_to_end(name)
        if len(heads) > HEADS_KEPT:
            heads.popitem(last=False)

    # --- what ``commits.State`` asks for ------------------------------------------------------------

    def begin(self) -> Transaction:
        return Transaction(
            self.storage, self.head, self.position, int(self.clock() * 10_000_000), self.streams
        )

    def hold(self, tx: Transaction) -> None:
        self._held = {name: self.head(name) for name in tx.heads}

    def release(self) -> None:
        self._held = {}

    def publish(self, tx: Transaction, seconds: float) -> None:
        self._on_synced(tx.puts, seconds)
        self._held = {}
        self.position, self.streams = tx.position, tx.streams
        for name, head in tx.heads.items():
            self._remember(name, head)

    def announce(self, tx: Transaction) -> None:
        if tx.heads:
            self.wakeups.grown(tx.heads)

    async def append(
        self, name: str, expected: int | Expected, events: Sequence[Proposed], size: int = 0
    ) -> Appended | Wrong | Deleted:
        """Append ``events`` to stream ``name`` if it is as expected (``streams.decide``)."""
        ids = [event.id for event in events]
        by_id = expected in {Expected.ANY, Expected.EXISTS}

        def command(tx: Transaction) -> Appended | Wrong | Deleted:
            head = tx.head(name)
            match decide(expected, head, ids, partial(tx.id_at, head), partial(tx.revision_of, head)):
                case Accept(first) if events:
                    return Appended(first + len(events) - 1, tx.append(name, events, by_id=by_id))
                case Accept():
                    return Appended(head.last, 0)
                case Duplicate(last):
                    stored = tx.stored(head, last)
                    return Appended(last, 0 if stored is None else position_of(stored))
                case refused:
                    return refused

        return await self.run(command, size + EVENT_COST * len(events))

    async def delete(self, name: str, expected: int | Expected, hard: bool) -> Appended | Wrong | Deleted:
        """Hide stream ``name``, whose numbering continues later, or delete it for good (``hard``)."""

        def command(tx: Transaction) -> Appended | Wrong | Deleted:
            head = tx.head(name)
            decision = decide_delete(expected, head, hard)
            if not isinstance(decision, Accept):
                return decision if isinstance(decision, Wrong) else Deleted()
            if hard:
                return Appended(LAST_REVISION, tx.append(name, [tombstone_event()], LAST_REVISION))
            if head.deleted:
                return Appended(head.last, 0)
            return Appended(head.last, tx.delete_stream(name))

        return await self.run(command)

    async def close(self) -> None:
        """Accept no more commands; when the queued ones are on disk, close the storage."""
        await self._commits.close()
        self.storage.close()
