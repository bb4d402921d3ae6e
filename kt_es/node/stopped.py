"""Reading the data directory of a node that is not running.

A process that may read the directory may read all of it. Users, rights and TLS protect a running node only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import UUID

from kt_es.errors import KtError
from kt_es.eventstore.streams import Event
from kt_es.node.access.users import FILE_NAME
from kt_es.node.store.log import read_head, verify_end
from kt_es.node.store.reading import CHUNK_EVENTS, forwards
from kt_es.node.store.records import id_of, parsed, position_of, revision_of, type_of
from kt_es.node.store.rocks import open_existing
from kt_es.node.store.storage import NodeStorage
from kt_es.node.store.streams import StreamHead


class StoppedLog:
    """Reads streams as ``eventstore.streams.EventLog`` does. Raises as ``verify_end``."""

    def __init__(self, storage: NodeStorage) -> None:
        self.storage = storage
        self.clock = time.time
        verify_end(storage)

    def head(self, name: str) -> StreamHead:
        return read_head(self.storage, name)

    def read(self, stream: str, start: int = 0, limit: int | None = None) -> Iterator[Event]:
        """Yield at most ``limit`` events of ``stream`` from revision ``start`` on; none if it does not exist.

        Raises ``KtError`` if the stream is deleted for good.
        """
        if self.head(stream).tombstoned:
            raise KtError(f"read {stream}: the stream is deleted for good")
        more = True
        while more and limit != 0:
            chunk = forwards(self, stream, start, CHUNK_EVENTS if limit is None else limit)
            start, more = chunk.following, chunk.more
            for stored in chunk.events:
                yield Event(
                    stream,
                    revision_of(stored),
                    type_of(stored),
                    parsed(stored).event.data,
                    UUID(id_of(stored)),
                    position_of(stored),
                )
            limit = None if limit is None else limit - len(chunk.events)


@contextmanager
def opened(data: Path) -> Iterator[StoppedLog]:
    """Yield the log in the data directory of a node. Meanwhile no other process can open it.

    Raises as ``open_existing`` (``LockedError``: the node is running), and as ``StoppedLog``.
    """
    with closing(open_existing(data)) as storage:
        yield StoppedLog(storage)


def has_users(data: Path) -> bool:
    """Return whether the node in ``data`` has users, so that clients have to log in."""
    return (data / FILE_NAME).exists()
