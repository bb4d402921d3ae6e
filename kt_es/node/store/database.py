"""RocksDB in a directory: opening it, translating its errors, and waiting while the disk is full.

``Acknowledged`` notices a log that lost its end. The database cannot tell an append that was cut off by a
kill (and never acknowledged) from a damaged length in front of acknowledged appends: both end the write-ahead
log early and without an error. So a small file of its own has the number of the last change on disk. The file
is written after each sync and not synced itself. After a kill it is exact; after a power failure or on a full
disk it may be old; it is never too high.

Layout of the file: number u64, CRC-32 of these bytes u32, big-endian. A damaged file counts as missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import structlog
from rocksdict import AccessType, DBCompressionType, DBRecoveryMode, Options, Rdict

from kt_es.errors import ConfigError, KtError, LockedError
from kt_es.node.store.storage import NodeStorage, NoSpaceError, StorageError
from kt_es.process.space import is_full

_LOG = structlog.get_logger("kt_es.node")
PAUSE = 1.0  # seconds between attempts
FOLDER = "log"
_NUMBER = struct.Struct(">Q")
_FILE = struct.Struct(">QI")
# Errors that another start does not mend: the path, or the rights to it, must be changed by the operator.
_MISUSED = re.compile(r"Permission denied|Operation not permitted|Not a directory|Is a directory|File exists")
_SYSTEM = re.compile(r"^IO error|\(os error [0-9]+\)$")
_TAKEN = re.compile(r"While lock file: .*: Resource temporarily unavailable|lock hold by current process")


class DiskOutage:
    """Whether writes are refused. Everything is on the event loop's thread.

    ``on_failure`` gets the error if the disk has another fault than being full.
    """

    def __init__(
        self, storage: NodeStorage, on_failure: Callable[[Exception], None], pause: float = PAUSE
    ) -> None:
        self._storage = storage
        self._on_failure = on_failure
        self._pause = pause
        self._task: asyncio.Task[None] | None = None
        self._over = asyncio.Event()
        self._over.set()

    @property
    def is_on(self) -> bool:
        return not self._over.is_set()

    async def over(self) -> None:
        """Return once writes are accepted, or the node stops."""
        await self._over.wait()

    def begin(self, error: NoSpaceError) -> None:
        """Refuse writes; ``error`` has the reason."""
        if self.is_on:
            return
        self._over.clear()
        reason = str(error.__cause__ or error)
        _LOG.error("the disk is full: writes are refused, reads go on", reason=reason)
        self._task = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        began = time.monotonic()
        try:
            while not await self._has_ended():
                await asyncio.sleep(self._pause)
        except Exception as error:  # noqa: BLE001  the disk is in doubt
            self._on_failure(error)
        else:
            _LOG.warning("there is space again: writes go on", seconds=round(time.monotonic() - began))
        finally:
            self._over.set()

    async def _has_ended(self) -> bool:
        if not await asyncio.to_thread(self._storage.may_recover):
            return False
        try:
            # On the loop's thread, so that nobody reads meanwhile.
            self._storage.recover()
        except NoSpaceError:
            return False
        return True

    async def close(self) -> None:
        """Stop testing for space."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    # Most of the node's memory: at most three times 16 MiB that are written and not yet in tables.
    options.set_write_buffer_size(16 << 20)
    options.set_max_write_buffer_number(3)
    options.set_max_background_jobs(2)
    options.set_max_total_wal_size(256 << 20)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_keep_log_file_num(4)
    # A record that a kill cut off was never acknowledged. Damage anywhere else must not be skipped.
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    return options


def open_database(path: Path, *, to_read: bool = False) -> Rdict:
    """Return the database in directory ``path``, which no other process has open.

    Opening a database writes to it: the content of the write-ahead log goes into tables first. With
    ``to_read`` nothing is written, so neither space nor the lock is needed. An incomplete last write is then
    not shown.

    Raises:
        LockedError: Another process has it.
        NoSpaceError: There is no space for that; nothing was lost.
        ConfigError: The directory holds no database or a damaged one, or may not be opened.
        StorageError: The disk refused.
    """
    access = AccessType.read_only(error_if_log_file_exist=False) if to_read else AccessType.read_write()
    try:
        return Rdict(str(path / FOLDER), _options(), access_type=access)
    except Exception as error:
        text = str(error)
        if is_full(error):
            raise NoSpaceError from error
        if _TAKEN.search(text):
            raise in_use(path) from None
        raise _unusable(
            path, text, is_final=not _SYSTEM.search(text) or bool(_MISUSED.search(text))
        ) from None


def in_use(path: Path) -> LockedError:
    """Return the error for a directory that another process has."""
    return LockedError(f"data directory {path} is in use by another node")


def _unusable(path: Path, reason: str, *, is_final: bool) -> KtError:
    """Return the error for a directory that cannot be opened. ``is_final``: another start does not help."""
    text = f"data directory {path} cannot be opened: {reason}"
    return ConfigError(text) if is_final else StorageError(text)


def refused(path: Path, error: OSError) -> KtError:
    """Return the error for a directory or file of the node that the system refuses."""
    if is_full(error):
        return NoSpaceError()
    is_final = isinstance(error, PermissionError | NotADirectoryError | IsADirectoryError | FileExistsError)
    reason = os.strerror(error.errno) if error.errno else str(error)
    return _unusable(path, reason, is_final=is_final)


def files_size(path: Path, pattern: str) -> int:
    """Return bytes of the database's files in ``path`` whose names match ``pattern``."""
    size = 0
    for file in (path / FOLDER).glob(pattern):
        # RocksDB may delete a file meanwhile.
        with contextlib.suppress(FileNotFoundError):
            size += file.stat().st_size
    return size


class Acknowledged:
    """The file ``acknowledged``, open for writing. Whoever has it open has the directory.

    Raises ``OSError`` from every method; here ``BlockingIOError`` if another process has the file open.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "acknowledged"
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # RocksDB does not lock a database that is open for reading only.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise

    def read(self) -> int:
        """Return the number; 0 if there is none."""
        raw = os.pread(self._file, _FILE.size, 0)
        if len(raw) != _FILE.size:
            return 0
        number, crc = _FILE.unpack(raw)
        return int(number) if crc == zlib.crc32(_NUMBER.pack(number)) else 0

    def write(self, number: int) -> None:
        """Write that changes up to ``number`` are on disk."""
        os.pwrite(self._file, _FILE.pack(number, zlib.crc32(_NUMBER.pack(number))), 0)

    def close(self) -> None:
        os.close(self._file)
