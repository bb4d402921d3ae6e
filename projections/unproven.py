"""Checkpoints of another log that the directory signed, while nothing proves it to others yet.

They are half of a proof: a signed statement of the same size from the other side makes evidence of them. So
they are kept in the data directory, and every later start compares them again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kt_es.client.elsewhere import SavedCheckpoint
from kt_es.crypto.hashes import sha256
from kt_es.errors import DivergenceError
from kt_es.formats.heads import LogName
from kt_es.process.files import create_file

FOLDER: Final = "unproven"


class UnprovenError(DivergenceError):
    """The directory signed ``checkpoint``, of ``size`` leaves of another ``log`` than was verified here."""

    def __init__(self, problem: str, log: LogName, size: int, checkpoint: bytes) -> None:
        super().__init__(problem, log, size, checkpoint)
        self.log = log
        self.size = size
        self.checkpoint = checkpoint

    def __str__(self) -> str:
        return str(self.args[0])


@contextmanager
def keeping_unproven(data: Path | None) -> Iterator[None]:
    """Keep the checkpoint below ``data`` if the block raises ``UnprovenError``, and say so in the error."""
    try:
        yield
    except UnprovenError as error:
        kept = keep_unproven(data, error.log, error.size, error.checkpoint)
        raise DivergenceError(f"{error}; {kept}") from None


def keep_unproven(data: Path | None, log: LogName, size: int, checkpoint: bytes) -> str:
    """Save a checkpoint below ``data``, and return what an alarm says about it and what to do."""
    if data is None:
        return "it is kept nowhere: save it, and start again with --data to keep it"
    path = data / FOLDER / f"{log}-{size}-{sha256(checkpoint).hex()[:16]}.checkpoint"
    try:
        create_file(path, checkpoint)
    except FileExistsError:
        pass  # Its name has the hash of it.
    except OSError as error:
        return f"{path} cannot be written ({error.strerror}): save the checkpoint yourself"
    return (
        f"the checkpoint is kept in {path}, and each start compares it again: `kt get LABEL --also {path}` "
        "asks a front end for the other half of the proof; move the file away if the case is settled"
    )


def kept_unproven(data: Path | None, origin: str) -> Sequence[SavedCheckpoint]:
    """Return the checkpoints that were kept below ``data``."""
    if data is None:
        return ()
    return [SavedCheckpoint(path, origin) for path in sorted((data / FOLDER).glob("*.checkpoint"))]
