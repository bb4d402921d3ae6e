"""The changes of one group commit: heads, events and records, which one command after another stages."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from uuid import uuid4

from kt_es.eventstore.rights import JSON, TRUNCATE_BEFORE, json_object
from kt_es.node.store.records import Proposed, encoder, id_of, parsed
from kt_es.node.store.storage import (
    POSITION_KEY,
    STREAMS_KEY,
    NodeStorage,
    encode_range,
    event_key,
    from_u64,
    head_key,
    id_key,
    range_key,
    u64,
)
from kt_es.node.store.streams import LAST_REVISION, StreamHead, with_metadata

META = "$$"  # "$$x" is the stream of x's metadata


def described_by(name: str) -> str:
    """Return the stream whose metadata are in stream ``name``, or ``""``. Metadata have no metadata."""
    about = name.removeprefix(META)
    return "" if about == name or about.startswith(META) else about


def metadata_event(current: bytes | None, truncate_before: int) -> Proposed:
    """Return a ``$metadata`` event that keeps what the stored event ``current`` says, except for ``$tb``."""
    values = json_object(parsed(current).event.data) if current is not None else {}
    values[TRUNCATE_BEFORE] = truncate_before
    return Proposed(str(uuid4()), "$metadata", JSON, b"", json.dumps(values).encode())


def tombstone_event() -> Proposed:
    """Return the last event that a tombstoned stream ever has."""
    return Proposed(str(uuid4()), "$streamDeleted", JSON, b"", b"{}")


class Transaction:
    """The effects that commands stage. Readers do not see these before they are on disk.

    ``heads`` are the staged heads by stream name; ``puts`` and ``deletes`` are for the storage. ``position``
    and ``streams`` (how many ever had an event) have the values after the transaction.
    """

    def __init__(
        self,
        storage: NodeStorage,
        durable_head: Callable[[str], StreamHead],
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
        self.heads: dict[str, StreamHead] = {}
        self.puts: list[tuple[bytes, bytes]] = []
        self.deletes: list[bytes] = []
        self._deleted: list[tuple[bytes, int]] = []

    def head(self, name: str) -> StreamHead:
        """Return the head after everything staged so far."""
        staged = self.heads.get(name)
        return staged if staged is not None else self._durable_head(name)

    def stored(self, head: StreamHead, revision: int) -> bytes | None:
        """Return the event at ``revision``, staged or durable."""
        return self._get(event_key(head.number, revision))

    def id_at(self, head: StreamHead, revision: int) -> str | None:
        """Return the id of the event at ``revision``."""
        found = self.stored(head, revision)
        return None if found is None else id_of(found)

    def revision_of(self, head: StreamHead, event_id: str) -> int | None:
        """Return the revision of the event with this id, if the id can be found."""
        found = self._get(id_key(head.number, event_id))
        return None if found is None else from_u64(found)

    def staged_or_stored(self, key: bytes) -> bool:
        puts = [at for at, (staged, _) in enumerate(self.puts) if staged == key]
        deletes = [at for staged, at in self._deleted if staged == key]
        if puts or deletes:
            return max(puts, default=-1) >= max(deletes, default=-1)
        return self._storage.get(key) is not None

    @property
    def changes(self) -> bool:
        return bool(self.puts or self.deletes or self._deleted)

    def put(self, key: bytes, value: bytes) -> None:
        self.puts.append((key, value))

    def delete(self, key: bytes) -> None:
        """Stage the removal of a record; a later ``put`` under ``key`` stays."""
        self._deleted.append((key, len(self.puts)))

    def append(
        self, name: str, events: Sequence[Proposed], revision: int | None = None, by_id: bool = False
    ) -> int:
        """Stage ``events`` at the end of stream ``name`` (or at ``revision``); return the last position.

        ``by_id``: each event can be found by its id later. Otherwise only the first can, which saves keys: a
        repetition with an exact revision is recognised by its revisions.

        Writing to a deleted stream, or to its metadata, revives it. What was deleted stays hidden.
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
        stage = self.puts.append
        position, at = first_position, first
        for event in events:
            stage((event_key(number, at), encode(event, at, position)))
            if by_id or at == first:
                stage((id_key(number, event.id), u64(at)))
            at += 1
            position += 1
        self.position = position - 1
        stage((range_key(self.position), encode_range(number, first, first_position)))
        last = at - 1
        self.heads[name] = StreamHead(
            number,
            last,
            last == LAST_REVISION,
            head.truncate_before,
            # Only the last event of metadata is read.
            1 if name.startswith(META) else head.max_count,
            head.max_age,
            head.scavenged,
        )
        if (about := described_by(name)) and events:
            self.heads[about] = with_metadata(self.head(about), events[-1].content_type, events[-1].data)
        return self.position

    def rewrite_metadata(self, name: str, truncate_before: int) -> int:
        """Stage the stream's metadata with another ``$tb``; return the position."""
        about = self.head(META + name)
        current = self.stored(about, about.last) if about.last >= 0 else None
        return self._stage(META + name, [metadata_event(current, truncate_before)], None, by_id=False)

    def delete_stream(self, name: str) -> int:
        """Hide all events of a stream until it is written again; return the position.

        All other metadata are lost, the ACL included.
        """
        return self._stage(META + name, [metadata_event(None, LAST_REVISION)], None, by_id=False)

    def finish(self) -> None:
        """Stage the heads and counters that result from the commands."""
        for name, head in self.heads.items():
            self.puts.append((head_key(name), head.encode()))
        self.puts.append((POSITION_KEY, u64(self.position)))
        self.puts.append((STREAMS_KEY, u64(self.streams)))
        if self._deleted:
            put_last = {key: at for at, (key, _) in enumerate(self.puts)}
            self.deletes += [key for key, at in self._deleted if put_last.get(key, -1) < at]

    def _get(self, key: bytes) -> bytes | None:
        if self._indexed < len(self.puts):
            # Few commands read what others in the same commit have staged.
            self._staged.update(self.puts[self._indexed :])
            self._indexed = len(self.puts)
        staged = self._staged.get(key)
        return staged if staged is not None else self._storage.get(key)
