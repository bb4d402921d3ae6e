"""RocksDB in a directory: how it is opened, to write and to read only, and what its errors mean."""

from __future__ import annotations

import os
import re
from pathlib import Path

from rocksdict import AccessType, DBCompressionType, DBRecoveryMode, Options, Rdict

from kt_es.errors import ConfigError, KtError, LockedError
from kt_es.process.space import is_full

FOLDER = "log"
# What a start again does not mend: the directory, or the right to use it, is another than was meant.
_MISUSED = re.compile(r"Permission denied|Operation not permitted|Not a directory|Is a directory|File exists")
_SYSTEM = re.compile(r"^IO error|\(os error [0-9]+\)$")
_TAKEN = re.compile(r"While lock file: .*: Resource temporarily unavailable|lock hold by current process")


class StorageError(KtError):
    """The disk refused a read or a write; the node has to stop."""


class NoSpaceError(StorageError):
    """The disk is full or a quota is used up: nothing was written, and nothing is in doubt.

    Clients get its text. Where the disk is full stands in the log.
    """

    exit_code = 7

    def __init__(self) -> None:
        super().__init__("the disk is full: nothing can be written; try again later")


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    # Of the node's memory most is this: what is written and not yet in tables, at most three times 16 MiB.
    options.set_write_buffer_size(16 << 20)
    options.set_max_write_buffer_number(3)
    options.set_max_background_jobs(2)
    options.set_max_total_wal_size(256 << 20)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_keep_log_file_num(4)
    # A record cut off by a kill was never acknowledged; damage anywhere else must not be skipped.
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    return options


def open_database(path: Path) -> Rdict:
    """The database in directory ``path``, which no other process has open.

    It writes: what stands in the write-ahead log is put into tables first.

    Raises:
        LockedError: another process has it.
        NoSpaceError: there is no space for that; nothing was lost.
        ConfigError: what is there is no database, a damaged one, or may not be opened.
        StorageError: the disk refused.
    """
    return _opened(path, AccessType.read_write())


def open_to_read(path: Path) -> Rdict:
    """The database as it is now: what a write left half done is not in it. Needs no space and no lock.

    Raises the same.
    """
    return _opened(path, AccessType.read_only(error_if_log_file_exist=False))


def _opened(path: Path, access: AccessType) -> Rdict:
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
    """The error for a directory that another process has."""
    return LockedError(f"data directory {path} is in use by another node")


def _unusable(path: Path, reason: str, *, is_final: bool) -> KtError:
    """The error for a directory that cannot be opened; ``is_final``: starting again does not help."""
    text = f"data directory {path} cannot be opened: {reason}"
    return ConfigError(text) if is_final else StorageError(text)


def refused(path: Path, error: OSError) -> KtError:
    """The error for a directory or file of the node that the system refuses."""
    if is_full(error):
        return NoSpaceError()
    is_final = isinstance(error, PermissionError | NotADirectoryError | IsADirectoryError | FileExistsError)
    reason = os.strerror(error.errno) if error.errno else str(error)
    return _unusable(path, reason, is_final=is_final)


def log_bytes(path: Path) -> int:
    """Size of the write-ahead log in ``path``: what ``open_database`` may have to write."""
    sizes = 0
    for file in (path / FOLDER).glob("*.log"):
        try:
            sizes += file.stat().st_size
        except FileNotFoundError:  # it was deleted meanwhile
            continue
    return sizes
