"""Whether a failure says that a disk is full. That passes by itself when somebody makes room.

Every other failure of a disk leaves doubt about what is on it, and has to end the process.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import tempfile
from pathlib import Path

from kt_es.errors import ConfigError, DiskFullError, KtError

_NUMBERS = {errno.ENOSPC, errno.EDQUOT}
# RocksDB and rocksdict have no numbers for what the system said, only its words. A path stands in the
# message, too, so that the words could also be somebody's name for a directory.
_SAID = "(?:No space left on device|Disk quota exceeded)"
_WORDS = re.compile(rf"IO error: (?:.*: )?{_SAID}(?::|$)|{_SAID} \(os error \d+\)$", re.DOTALL)


def is_full(error: BaseException) -> bool:
    """Whether ``error``, of the system, of RocksDB or of SQLite, says that a disk or a quota is full."""
    if isinstance(error, OSError):
        return error.errno in _NUMBERS
    if isinstance(error, sqlite3.Error):
        # The low byte is the kind; an error of the module itself has no code.
        return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    return type(error) is Exception and _WORDS.match(str(error)) is not None


def unwritable(path: Path, error: OSError | sqlite3.Error) -> KtError:
    """What to raise where ``path`` cannot be written: a full disk passes, everything else is a wrong path."""
    if is_full(error):
        return DiskFullError(path)
    return ConfigError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}")


def has_space(directory: Path, size: int) -> bool:
    """Whether ``size`` bytes can be written to a file in ``directory``, which is gone afterwards.

    By trying, since the figures of a file system say nothing of quotas. Raises ``OSError`` for whatever else
    is wrong.
    """
    try:
        with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
            piece = bytes(min(size, 1 << 16))
            while size > 0:
                size -= file.write(piece[:size])
            os.fsync(file.fileno())
    except OSError as error:
        if is_full(error):
            return False
        raise
    return True
