"""How far the log has been acknowledged, kept apart from it: so that a log that lost its end is noticed.

The database cannot tell an append that was cut off by a kill (which nobody was told of) from a damaged
length in front of appends that were acknowledged: both end the write-ahead log early, and quietly. So the
number of the last change that is on disk stands in a small file of its own as well. It is written after
each sync and not synced itself: after a kill it is exact, after a power failure it may be old, never too
high. It may also be old where the disk is full.

Who has the file open has the directory: another process is refused it.

Layout: number u64, CRC-32 of these bytes u32, big-endian. A file that is damaged says nothing.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from pathlib import Path

_NUMBER = struct.Struct(">Q")
_FILE = struct.Struct(">QI")
NAME = "acknowledged"


class Acknowledged:
    """The file, open for writing.

    Raises:
        BlockingIOError: another process has it.
        OSError: from every method, with the operating system's reason.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / NAME
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # A database that is open to read only is not locked by RocksDB.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise

    def read(self) -> int:
        """The number; 0 if there is none."""
        raw = os.pread(self._file, _FILE.size, 0)
        if len(raw) != _FILE.size:
            return 0
        number, crc = _FILE.unpack(raw)
        return int(number) if crc == zlib.crc32(_NUMBER.pack(number)) else 0

    def write(self, number: int) -> None:
        """Changes up to ``number`` are on disk."""
        os.pwrite(self._file, _FILE.pack(number, zlib.crc32(_NUMBER.pack(number))), 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
