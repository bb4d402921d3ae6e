"""What one group commit writes: staged heads, events and records, decided one command after another."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from kt_es.node.store.metadata import metadata_event
from kt_es.node.store.records import Proposed, encoder, id_of
from kt_es.node.store.storage import POSITION_KEY, STREAMS_KEY, Storage
from kt_es.node.store.streams import LAST_REVISION, Head, with_metadata

_EVENT = struct.Struct(">cQQ")
_RANGE_KEY = struct.Struct(">cQ")
_RANGE = struct.Struct(">QQQ")
_ID = struct.Struct(">cQ16s")
_U64 = struct.Struct(">Q")
RANGE = b"P"
LAST_POSITION = 2**64 - 1  # higher than any
META = "$$"  # "$$x" is the stream of x's metadata


def head_key(name: str) -> bytes:
    """Where the head of a stream stands."""
    return b"H" + name.encode()


def described_by(name: str) -> str:
    """The stream whose metadata stand in stream ``name``, or ``""``. Metadata have none of their own."""
    about = name.removeprefix(META)
    return "" if about == name or about.startswith(META) else about


def event_key(number: int, revision: int) -> bytes:
    """Where an event stands."""
    return _EVENT.pack(b"E", number, revision)


def id_key(number: int, event_id: str) -> bytes:
    """Where the revision of an event stands."""
    return _ID.pack(b"I", number, bytes.fromhex(event_id.replace("-", "")))


def decode_event_key(key: bytes) -> tuple[int, int]:
    """Stream number and revision."""
    _, number, revision = _EVENT.unpack(key)
    return number, revision


def decode_id_key(key: bytes) -> tuple[int, str]:
    """Stream number and event id, 32 hexadecimal digits."""
    _, number, raw = _ID.unpack(key)
    return number, raw.hex()


def range_key(position: int) -> bytes:
    """The append that ends at ``position``; the first key at or after it covers the position."""
    return _RANGE_KEY.pack(RANGE, position)


def decode_range(key: bytes, value: bytes) -> tuple[int, int, int, int]:
    """(first position, last position, stream number, first revision) of an append."""
    _, last = _RANGE_KEY.unpack(key)
    number, revision, first = _RANGE.unpack(value)
    return first, last, number, revision


def encode_range(number: int, revision: int, first: int) -> bytes:
    """The value of an append: stream number, first revision, first position."""
    return _RANGE.pack(number, revision, first)


def u64(value: int) -> bytes:
    """Eight bytes, big-endian."""
    return _U64.pack(value)


def from_u64(value: bytes) -> int:
    """The reverse of ``u64``."""
    number: int = _U64.unpack(value)[0]
    return number


class Transaction:
    """Commands stage their effects here; nothing is visible to readers before it is on disk.

    ``heads`` are the staged heads by stream name, ``puts`` and ``deletes`` what storage is to apply;
    ``position`` and ``streams`` (how many ever had an event) are as they are after that.
    """

    def __init__(
        self,
        storage: Storage,
        durable_head: Callable[[str], Head],
        position: int,
        created: int,
        streams: int = 0,
    ) -> None:
        self._storage = storage
        self._durable_head = durable_head
        self._staged: dict[bytes, bytes] = {}  # the first ``_indexed`` of the puts, by key
        self._indexed = 0
        self.position = position
        self.streams = streams
        self.created = created
        self.heads: dict[str, Head] = {}
        self.puts: list[tuple[bytes, bytes]] = []
        self.deletes: list[bytes] = []
        self._deleted: list[tuple[bytes, int]] = []

    def head(self, name: str) -> Head:
        """The head as it is after everything staged before."""
        staged = self.heads.get(name)
        return staged if staged is not None else self._durable_head(name)

    def stored(self, head: Head, revision: int) -> bytes | None:
        """The event at ``revision``, staged or durable."""
        return self._get(event_key(head.number, revision))

    def id_at(self, head: Head) -> Callable[[int], str | None]:
        """A function from revision to event id, for ``streams.decide``."""

        def read(revision: int) -> str | None:
            found = self.stored(head, revision)
            return None if found is None else id_of(found)

        return read

    def revision_of(self, head: Head) -> Callable[[str], int | None]:
        """A function from event id to revision, for ``streams.decide``."""

        def read(event_id: str) -> int | None:
            found = self._get(id_key(head.number, event_id))
            return None if found is None else from_u64(found)

        return read

    def staged_or_stored(self, key: bytes) -> bool:
        """Whether there is a record under ``key``."""
        puts = [at for at, (staged, _) in enumerate(self.puts) if staged == key]
        deletes = [at for staged, at in self._deleted if staged == key]
        if puts or deletes:
            return max(puts, default=-1) >= max(deletes, default=-1)
        return self._storage.get(key) is not None

    @property
    def changes(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.puts or self.deletes or self._deleted)

    def put(self, key: bytes, value: bytes) -> None:
        """Stage a record that is not an event."""
        self.puts.append((key, value))

    def delete(self, key: bytes) -> None:
        """Stage the removal of a record; what is put under ``key`` afterwards stays."""
        self._deleted.append((key, len(self.puts)))

    def append(
        self, name: str, events: Sequence[Proposed], revision: int | None = None, by_id: bool = False
    ) -> int:
        """Stage ``events`` at the end of stream ``name`` (or at ``revision``); returns the last position.

        ``by_id``: each can be found by its id later. Otherwise only the first can: an append with an
        exact revision is recognised by its place when it is repeated, and fewer keys are written.

        A deleted stream is back when it is written, or when its metadata are. What was deleted stays hidden.
        """
        back = name[len(META) :] if name.startswith(META) else name
        before = self.head(back)
        position = self._stage(name, events, revision, by_id)
        if before.deleted and revision is None and events:
            self.rewrite_metadata(back, before.last + 1)
        return position

    def _stage(self, name: str, events: Sequence[Proposed], revision: int | None, by_id: bool) -> int:
        head = self.head(name)
        first = head.last + 1 if revision is None else revision
        first_position = self.position + 1
        number = head.number
        if not number:
            number = first_position
            self.streams += 1
        encode = encoder(name.encode(), self.created)
        stage, pack = self.puts.append, _EVENT.pack
        position, at = first_position, first
        for event in events:
            stage((pack(b"E", number, at), encode(event, at, position)))
            if by_id or at == first:
                stage((id_key(number, event.id), _U64.pack(at)))
            at += 1
            position += 1
        self.position = position - 1
        stage((range_key(self.position), encode_range(number, first, first_position)))
        last = at - 1
        self.heads[name] = Head(
            number,
            last,
            last == LAST_REVISION,
            head.truncate_before,
            # Of metadata, the last event alone is read.
            1 if name.startswith(META) else head.max_count,
            head.max_age,
            head.scavenged,
        )
        if (about := described_by(name)) and events:
            self.heads[about] = with_metadata(self.head(about), events[-1].content_type, events[-1].data)
        return self.position

    def rewrite_metadata(self, name: str, truncate_before: int) -> int:
        """Append metadata like the stream's own but with this ``$tb``; returns its position."""
        about = self.head(META + name)
        current = self.stored(about, about.last) if about.last >= 0 else None
        return self._stage(META + name, [metadata_event(current, truncate_before)], None, by_id=False)

    def delete_stream(self, name: str) -> int:
        """Hide all events of a stream, until it is written again; returns the position.

        All other metadata are lost, the ACL included.
        """
        return self._stage(META + name, [metadata_event(None, LAST_REVISION)], None, by_id=False)

    def finish(self) -> None:
        """Stage what follows from the commands: heads and the position."""
        for name, head in self.heads.items():
            self.puts.append((head_key(name), head.encode()))
        self.puts.append((POSITION_KEY, u64(self.position)))
        self.puts.append((STREAMS_KEY, u64(self.streams)))
        if self._deleted:
            put_last = {key: at for at, (key, _) in enumerate(self.puts)}
            self.deletes += [key for key, at in self._deleted if put_last.get(key, -1) < at]

    def _get(self, key: bytes) -> bytes | None:
        if self._indexed < len(self.puts):
            # Few commands look at what others of the same commit have staged.
            self._staged.update(self.puts[self._indexed :])
            self._indexed = len(self.puts)
        staged = self._staged.get(key)
        return staged if staged is not None else self._storage.get(key)
