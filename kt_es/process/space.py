"""Full disks: which failures mean one, and standard error that survives it.

After any other failure of a disk its content is uncertain, and the process has to end.

Standard error is often a log file on the same disk as the data. Then messages for which there is no space
are lost, without an error.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Any, TextIO

from kt_es.errors import ConfigError, DiskFullError, KtError

_NUMBERS = {errno.ENOSPC, errno.EDQUOT}
# Errors of RocksDB and rocksdict have the text of the system's error, but not its number. The message also
# contains a path, in which a directory may be named like an error, so the pattern fixes the position.
_SAID = "(?:No space left on device|Disk quota exceeded)"
_WORDS = re.compile(rf"IO error: (?:.*: )?{_SAID}(?::|$)|{_SAID} \(os error \d+\)$", re.DOTALL)


def is_full(error: BaseException) -> bool:
    """Return whether an error of the system, of RocksDB or of SQLite means that a disk or a quota is full."""
    if isinstance(error, OSError):
        return error.errno in _NUMBERS
    if isinstance(error, sqlite3.Error):
        # The low byte is the primary code. Errors of the Python module have no code.
        return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    return type(error) is Exception and _WORDS.match(str(error)) is not None


def unwritable(path: Path, error: OSError | sqlite3.Error) -> KtError:
    """Return the error for a ``path`` that cannot be written: the disk is full, or the path is wrong."""
    if is_full(error):
        return DiskFullError(path)
    problem = getattr(error, "strerror", None) or error
    return ConfigError(f"{path} cannot be written: {problem}; make it writable, or name another path")


def has_space(directory: Path, size: int) -> bool:
    """Return whether ``size`` bytes can be written to a file in ``directory``.

    The function writes a temporary file, because the free space that a file system reports ignores quotas.

    Raises:
        OSError: Writing failed for another reason.
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


class _Forgiving(io.FileIO):
    """The file under standard error. ``lost`` is the number of lost writes since the last successful one."""

    lost = 0
    _ends_line = True

    def write(self, data: Any, /) -> int:
        view = bytes(data)
        try:
            if self.lost and not self._ends_line:
                # The file ends with an incomplete line. The next line must begin on a new one.
                super().write(b"\n")
                self._ends_line = True
            written = super().write(view)
        except OSError as error:
            if not is_full(error):
                raise
            self.lost += 1
            return len(view)
        self.lost = 0
        self._ends_line = view[:written].endswith(b"\n")
        return written


def forgive_full_disk() -> None:
    """Make a full disk under standard error harmless. Call it once, before any code keeps ``sys.stderr``."""
    try:
        descriptor = sys.stderr.fileno()
    except OSError:
        return  # standard error is not a file
    raw = _Forgiving(descriptor, "w", closefd=False)
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=sys.stderr.encoding,
        errors=sys.stderr.errors,
        line_buffering=True,
    )


def lost_lines(stream: TextIO) -> int:
    """Return the number of lost writes since the last successful one; 0 if ``stream`` does not count them."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw.lost if isinstance(raw, _Forgiving) else 0
