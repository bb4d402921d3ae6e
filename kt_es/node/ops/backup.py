"""Backup and restore of a node's data directory.

A backup is a folder: ``log/`` (a RocksDB directory), the file of users if there is one, and
``backup.json``, which is written last::

    {"format": 1, "position": last position that is surely in it, "made_at": ISO 8601, "bytes": size}

A backup holds one consistent state of streams and persistent subscriptions: everything that was acknowledged
before the backup was requested, and perhaps some of what was appended meanwhile. It is made beside its target
and renamed when it is complete.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kt_es.errors import ConfigError, KtError
from kt_es.node.access.users import FILE_NAME as USERS
from kt_es.node.store.rocks import RocksStorage
from kt_es.node.store.storage import POSITION_KEY

MANIFEST = "backup.json"
LOG = "log"
FORMAT = 1
_SCRATCH = "backup.tmp"


@dataclass(frozen=True, slots=True)
class Backup:
    """The content of ``backup.json``; ``bytes`` is the size on disk."""

    position: int
    made_at: str
    bytes: int
    format: int = FORMAT


def backup(storage: RocksStorage, target: Path) -> Backup:
    """Copy everything in ``storage`` to ``target``, absent or empty. Others may go on writing.

    Raises:
        ConfigError: ``target`` cannot be used.
        StorageError, KtError: The copy could not be made; nothing is left of it.
    """
    _require_empty(target)
    if target.resolve().is_relative_to(storage.path.resolve()):
        raise ConfigError(f"{target} lies in the data directory: choose another target")
    position = int.from_bytes(storage.get(POSITION_KEY) or b"")
    scratch = storage.path / _SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        # Links beside the log take no time and no space. Copying them then blocks nobody.
        storage.checkpoint(scratch)
        with _beside(target) as partial:
            size = _copy(scratch, partial / LOG)
            users = storage.path / USERS
            if users.exists():
                size += _copy_file(users, partial / USERS)
            made = Backup(position, datetime.now(UTC).isoformat(timespec="seconds"), size)
            (partial / MANIFEST).write_text(json.dumps(asdict(made), indent=1) + "\n")
            _sync(partial / MANIFEST)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return made


def restore(source: Path, target: Path) -> Backup:
    """Make the data directory ``target``, absent or empty, from the backup ``source``.

    The caller checks it (``checking.check``).

    Raises ``ConfigError`` if ``source`` is no backup, and as ``backup``.
    """
    made = read_manifest(source)
    _require_empty(target)
    with _beside(target) as partial:
        _copy(source / LOG, partial / LOG)
        if (source / USERS).exists():
            _copy_file(source / USERS, partial / USERS)
    return made


def read_manifest(source: Path) -> Backup:
    """Raises ``ConfigError``."""
    try:
        values: dict[str, Any] = json.loads((source / MANIFEST).read_bytes())
        made = Backup(**values)
    except (OSError, ValueError, TypeError):
        raise ConfigError(
            f"{source} is no complete backup: {MANIFEST} is missing or unreadable; "
            f"name a directory that kt node backup has made"
        ) from None
    if made.format != FORMAT:
        raise ConfigError(
            f"{source} is a backup of format {made.format}: restore it with the version that made it"
        )
    return made


def _require_empty(target: Path) -> None:
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ConfigError(f"{target} is not empty: name a directory that is absent or empty")
    except OSError as error:
        raise ConfigError(f"{target} cannot be used: {error.strerror}") from None


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Yield a new directory. When the block ends it becomes ``target``; if the block fails it is deleted."""
    partial = target.with_name(f"{target.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700, parents=True)
        yield partial
        _sync(partial)
        partial.replace(target)
        _sync(target.parent)
    except OSError as error:
        raise KtError(f"writing {target} failed: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _copy(source: Path, target: Path) -> int:
    target.mkdir(mode=0o700)
    size = sum(_copy_file(path, target / path.name) for path in sorted(source.iterdir()) if path.is_file())
    _sync(target)
    return size


def _copy_file(source: Path, target: Path) -> int:
    shutil.copyfile(source, target)
    target.chmod(0o600)
    _sync(target)
    return target.stat().st_size


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
