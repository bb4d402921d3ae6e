"""The check of all data in a node's directory.

``check`` reads everything once, in the order of the keys, and holds the state of one stream at a time: the
time grows with the data, the memory does not.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from kt_es.errors import MalformedError
from kt_es.node.groups.settings import checkpoint_key, decode_settings, group_names, groups_range
from kt_es.node.store.log import heads, read_head
from kt_es.node.store.records import content_of, id_of, name_of, parsed, position_of, revision_of
from kt_es.node.store.rocks import open_existing
from kt_es.node.store.storage import (
    EVENTS,
    IDS,
    LAST_POSITION,
    POSITION_KEY,
    STREAMS_KEY,
    NodeStorage,
    after,
    decode_event_key,
    decode_id_key,
    decode_range,
    event_key,
    from_u64,
    id_key,
    range_key,
)
from kt_es.node.store.streams import LAST_REVISION, StreamHead, with_metadata
from kt_es.node.store.transaction import described_by

MAX_PROBLEMS = 100  # in a report; further ones are only counted


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Result of a check. ``problems`` are sentences, at most ``MAX_PROBLEMS`` of the ``found`` ones."""

    position: int
    streams: int
    events: int
    groups: int
    found: int
    problems: tuple[str, ...]

    @property
    def sound(self) -> bool:
        return not self.found


def check(data: Path) -> CheckReport:
    """Check everything in ``data``, which no node may have open.

    Raises as ``open_existing``, and ``StorageError`` for a damaged file, whose content cannot be checked.
    """
    with closing(open_existing(data)) as storage:
        return _Check(storage).run()


class _Check:
    def __init__(self, storage: NodeStorage) -> None:
        self._storage = storage
        self._found = 0
        self._problems: list[str] = []

    def run(self) -> CheckReport:
        position = from_u64(self._storage.get(POSITION_KEY) or bytes(8))
        events = self._part("events", lambda: self._check_events(position))
        streams = self._part("streams", self._check_heads)
        self._part("$all", lambda: self._check_ranges(position, events))
        self._part("ids", self._check_ids)
        groups = self._part("persistent subscriptions", self._check_groups)
        return CheckReport(position, streams, events, groups, self._found, tuple(self._problems))

    def _part(self, what: str, part: Callable[[], int]) -> int:
        """Return the result of ``part``, or 0 if it met a record of a wrong length."""
        try:
            return part()
        except (struct.error, ValueError) as error:
            self._problem(f"{what}: a record cannot be decoded ({error}); what follows it was not checked")
            return 0

    def _problem(self, sentence: str) -> None:
        self._found += 1
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(sentence)

    # --- events ----------------------------------------------------------------------------------

    def _check_events(self, position: int) -> int:
        """Check that streams have their events without gaps, at ascending positions; return their number."""
        events, current = 0, -1
        stream = _Stream("", StreamHead(), 0, 0)
        for key, stored in self._storage.scan(EVENTS, after(EVENTS)):
            number, revision = decode_event_key(key)
            if number != current:
                current, name = number, name_of(stored)
                stream = _Stream(name, read_head(self._storage, name), 0, -1)
                stream.expected = stream.head.scavenged
                if stream.head.number != number:
                    self._problem(
                        f"events of stream number {number} name stream {name}, which has another number"
                    )
            events += 1
            self._check_event(stream, revision, stored, position)
        return events

    def _check_event(self, stream: _Stream, revision: int, stored: bytes, position: int) -> None:
        where = f"stream {stream.name}, revision {revision}"
        at = position_of(stored)
        tombstone = revision == LAST_REVISION and stream.head.tombstoned
        if revision != stream.expected and not tombstone:
            self._problem(f"{where}: revisions from {stream.expected} on are missing")
        if revision > stream.head.last:
            self._problem(f"{where}: is behind the end of its stream, {stream.head.last}")
        if not stream.position < at <= position:
            self._problem(f"{where}: position {at} is not between {stream.position} and the end of the log")
        stream.expected, stream.position = revision + 1, at
        try:
            body = parsed(stored).event
        except DecodeError:
            self._problem(f"{where}: cannot be decoded")
            return
        header = revision_of(stored), name_of(stored)
        content = body.stream_revision, body.commit_position, body.id.string
        if header != (revision, stream.name) or content != (revision, at, id_of(stored)):
            self._problem(f"{where}: its header and its content belong to different events")

    # --- heads -----------------------------------------------------------------------------------

    def _check_heads(self) -> int:
        """Check that each stream has its last event and the settings of its metadata; return their number."""
        streams = 0
        for name, head in heads(self._storage):
            streams += 1
            if head.last >= head.scavenged and self._event(head, head.last) is None:
                self._problem(f"stream {name}: its last event, revision {head.last}, is missing")
            if described := described_by(name):
                event = self._event(head, head.last)
                about = read_head(self._storage, described)
                if event is not None and with_metadata(about, *content_of(event)) != about:
                    self._problem(f"stream {described}: its settings are not those of its metadata")
        counted = self._storage.get(STREAMS_KEY)
        if counted is not None and from_u64(counted) != streams:
            self._problem(f"there are {streams} streams, but {from_u64(counted)} were counted")
        return streams

    def _event(self, head: StreamHead, revision: int) -> bytes | None:
        return self._storage.get(event_key(head.number, revision))

    # --- indexes ---------------------------------------------------------------------------------

    def _check_ranges(self, position: int, events: int) -> int:
        """Check that every event is in $all exactly once, at its position; return the number of events."""
        before = listed = 0
        for key, value in self._storage.scan(range_key(0), range_key(LAST_POSITION)):
            first, last, number, revision = decode_range(key, value)
            if not before < first <= last <= position:
                self._problem(f"$all: positions {first} to {last} overlap others, or the end of the log")
            before = last
            for at in range(first, last + 1):
                stored = self._storage.get(event_key(number, revision + at - first))
                if stored is None or position_of(stored) != at:
                    self._problem(f"$all: the event at position {at} is missing or was replaced")
                    continue
                listed += 1
                if at == first:
                    self._check_first(number, stored)
        if listed != events:
            self._problem(f"$all has {listed} events, the streams have {events}")
        return listed

    def _check_first(self, number: int, stored: bytes) -> None:
        """Check that the first event of an append is found by its id, so that a repetition is recognised."""
        head = read_head(self._storage, name_of(stored))
        found = self._storage.get(id_key(number, id_of(stored)))
        # A scavenge that cut the range lets it begin in the middle of an append.
        was_cut = head.scavenged > 0 and revision_of(stored) == head.scavenged
        if found is None and not was_cut:
            self._problem(f"$all: the event at position {position_of(stored)} cannot be found by its id")

    def _check_ids(self) -> int:
        """Check that every id names an event with that id; return the number of ids."""
        ids = 0
        for key, value in self._storage.scan(IDS, after(IDS)):
            ids += 1
            number, event_id = decode_id_key(key)
            revision = from_u64(value)
            stored = self._storage.get(event_key(number, revision))
            if stored is None or id_of(stored).replace("-", "") != event_id:
                self._problem(f"id {event_id}: stream {number} has another event at revision {revision}")
        return ids

    def _check_groups(self) -> int:
        """Return the settings and the checkpoint of every group can be read. Returns the number of groups."""
        groups = 0
        for key, value in self._storage.scan(*groups_range()):
            groups += 1
            try:
                stream, name = group_names(key)
                decode_settings(value)
            except (struct.error, ValueError, MalformedError) as error:
                self._problem(f"a persistent subscription cannot be read: {error}")
                continue
            checkpoint = self._storage.get(checkpoint_key(stream, name))
            if checkpoint is not None and len(checkpoint) != 8:
                self._problem(f"the checkpoint of {stream}::{name} cannot be read")
        return groups


@dataclass(slots=True)
class _Stream:
    """Progress of the check in one stream: the expected revision, and the last position."""

    name: str
    head: StreamHead
    expected: int
    position: int
