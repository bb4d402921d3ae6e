"""A folder that belongs to one process at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kt_es.errors import LockedError
from kt_es.process.space import unwritable


@contextmanager
def one_process(folder: Path, what: str) -> Iterator[None]:
    """Make ``folder`` if it is missing, and keep other processes out of it while the block runs.

    ``what`` names the process in messages, for instance ``kt cosign``. The lock ends with the process,
    however it ends. Raises ``LockedError``, and ``ConfigError`` or ``DiskFullError`` if the folder cannot be
    made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise unwritable(folder, error) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise LockedError(f"another {what} runs with {folder}: stop it first") from None
        yield
    finally:
        os.close(lock)
