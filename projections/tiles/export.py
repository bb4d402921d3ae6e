"""Both logs of a directory as files, for any web server: C2SP tlog-tiles.

``heads/`` and ``mutations/`` below one folder have a checkpoint and tiles each. Tiles never change, so a
reader may fetch them while this process writes. Each step is computed in memory and compared with the signed
checkpoint that it leads to before anything of it is written. The checkpoint follows when its tiles are
durable.

The folder itself says how far it reaches. Who reads it verifies the signatures: here they are copied.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kt_es.errors import ConfigError, DivergenceError, LockedError, MalformedError, RollbackError
from kt_es.eventstore.streams import Event, EventLog, StreamNames
from kt_es.formats.heads import HeadEvent, heads_origin, mutations_origin
from kt_es.ledger.recorded import RecordedItems
from kt_es.process.space import unwritable
from projections.tiles.folder import TileFolder, said_by

LOCK_FILE = ".lock"
STEP = 65_536
"""A step ends with the first epoch after this many records, which bounds its memory."""


@dataclass(frozen=True, slots=True)
class Exported:
    """How far an export reaches: the number of leaves of both logs."""

    heads: int
    mutations: int


class TileExport:
    """Writes what the event log has and the files have not, a step at a time. Close it after use."""

    def __init__(self, folder: Path, origin: str, names: StreamNames) -> None:
        """Open the folder, and make it if it is missing.

        Raises ``ConfigError`` if it belongs to another directory or is damaged, and ``LockedError``.
        """
        self._names = names
        self._lock = _locked(folder)
        try:
            self._heads = TileFolder(folder / "heads", heads_origin(origin))
            self._mutations = TileFolder(folder / "mutations", mutations_origin(origin))
        except ConfigError:
            self.close()
            raise

    def close(self) -> None:
        os.close(self._lock)

    @property
    def reached(self) -> Exported:
        return Exported(self._heads.state.size, self._mutations.state.size)

    def run(self, log: EventLog, stopping: Callable[[], bool] = lambda: False) -> Iterator[Exported]:
        """Write every epoch that is published now, and yield after each step.

        Raises:
            DivergenceError: The event log is not the one that the files were made of, or contradicts itself.
            RollbackError: The event log ends before the files do.
            UnavailableError: The event log cannot be reached. The next run goes on.
            OSError: A file cannot be written.
        """
        self._check_last(log)
        records = RecordedItems(log, self._names.mutations, self._mutations.state.size)
        heads: list[HeadEvent] = []
        new: list[bytes] = []
        for event in log.read(self._names.heads, self._heads.state.size):
            heads.append(_head_in(event))
            size = said_by(heads[-1].mutations_checkpoint).size
            new += records.take(size - self._mutations.state.size - len(new))
            if len(new) + len(heads) >= STEP:
                yield self._publish(heads, new)
                heads, new = [], []
                if stopping():
                    return
        if heads:
            yield self._publish(heads, new)

    def _check_last(self, log: EventLog) -> None:
        """Compare the end of the files with the event log."""
        size = self._heads.state.size
        if not size:
            return
        event = next(iter(log.read(self._names.heads, size - 1, 1)), None)
        if event is None:
            raise RollbackError(f"the files have {size} epochs, and the event log has fewer: it was set back")
        head = _head_in(event)
        self._heads.check(said_by(head.heads_checkpoint), self._heads.state)
        # The mutations come first, so after a crash they may reach further than the heads.
        if said_by(head.mutations_checkpoint).size == self._mutations.state.size:
            self._mutations.check(said_by(head.mutations_checkpoint), self._mutations.state)

    def _publish(self, heads: Sequence[HeadEvent], records: Sequence[bytes]) -> Exported:
        last = heads[-1]
        folders = [(self._heads, [head.smh_bytes for head in heads], last.heads_checkpoint)]
        if said_by(last.mutations_checkpoint).size >= self._mutations.state.size:
            folders.insert(0, (self._mutations, list(records), last.mutations_checkpoint))
        steps = []
        for folder, entries, text in folders:
            step = folder.extended(entries)
            folder.check(said_by(text), step.state)
            steps.append((folder, step, text))
        for folder, step, text in steps:
            folder.publish(step, text)
        return self.reached


def _locked(folder: Path) -> int:
    """Lock ``folder`` for this process until the descriptor that is returned is closed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unwritable(folder, error) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise LockedError(f"{folder} is in use: another kt export writes there; stop it first") from None
    return lock


def _head_in(event: Event) -> HeadEvent:
    try:
        return HeadEvent.decode(event.data)
    except MalformedError as error:
        raise DivergenceError(f"head of epoch {event.revision + 1}: {error}") from None
