"""Files that are whole or not there, and private files that are private.

A file is written under a random name that did not exist, opened so that no planted file or link is
followed, synced, and given its name; then its directory is synced. A private file is checked on the open
descriptor, so nothing can be exchanged between the check and the reading.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from kt_es.errors import ConfigError, MalformedError

PRIVATE = 0o600
PUBLIC = 0o644
MAX_KEY_FILE = 64 << 10  # bytes

_T = TypeVar("_T")


def replace_file(path: Path, data: bytes, mode: int = PRIVATE) -> None:
    """Make ``path`` hold ``data``, durably; what stood there is replaced, and a link itself is.

    Missing directories are made, for the owner alone. Raises ``OSError``: nothing has changed then.
    """
    with replacing(path, mode) as file:
        file.write(data)


def create_file(path: Path, data: bytes, mode: int = PRIVATE) -> None:
    """Make the new file ``path`` hold ``data``, durably.

    Raises ``FileExistsError`` if anything has that name, even a link to nowhere, and ``OSError``.
    """
    with _temporary(path, mode) as (file, temporary):
        file.write(data)
        _sync(file)
        # Linking, unlike renaming, never replaces what is there.
        os.link(temporary, path, follow_symlinks=False)
        temporary.unlink()


@contextlib.contextmanager
def replacing(path: Path, mode: int = PRIVATE) -> Iterator[BinaryIO]:
    """A file to write to, which becomes ``path``, durably, when the block ends without an error.

    For what is too large to be held in memory; otherwise as ``replace_file``.
    """
    with _temporary(path, mode) as (file, temporary):
        yield file
        _sync(file)
        temporary.replace(path)


@contextlib.contextmanager
def _temporary(path: Path, mode: int) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file beside ``path``, which the caller writes and moves to its place."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(8)}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file, temporary
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    sync_directory(path.parent)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Make the names in ``directory`` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_private(path: Path, what: str, limit: int) -> bytes:
    """The content of a file that nobody else may read: at most ``limit`` bytes of a regular file.

    ``what`` names the file in errors, ``the signing key`` for instance. Raises ``ConfigError``, with what to
    do, for a file that is missing, too large, of another user or open to others.
    """
    try:
        # Without O_NONBLOCK a pipe in the file's place would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror}") from None
    try:
        # Before it becomes a file object: of a directory none can be made.
        check_private(os.fstat(descriptor), path, what)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise ConfigError(f"{what} {path} is larger than {limit} bytes")
    return data


def read_key(path: Path, what: str, decode: Callable[[bytes], _T]) -> _T:
    """Return what ``decode`` makes of the key file ``path``, which nobody else may read.

    ``what`` names the key in errors, for instance ``the VRF key``.

    Raises:
        ConfigError: the file fails the checks of ``read_private``, or ``decode`` refuses its content.
    """
    data = read_private(path, what, MAX_KEY_FILE)
    try:
        return decode(data)
    except (ConfigError, MalformedError) as error:
        raise ConfigError(f"{what} {path} cannot be used: {error}") from None


def check_private(found: os.stat_result, path: Path, what: str) -> None:
    """Raise ``ConfigError`` unless ``found`` is a file of this user's or root's, closed to all others."""
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{what} {path} is not a regular file")
    if found.st_uid not in (os.geteuid(), 0):
        raise ConfigError(
            f"{what} {path} belongs to another user (uid {found.st_uid}): copy it to one of yours"
        )
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        raise ConfigError(f"{what} {path} is open to other users (mode {mode:03o}): chmod 600 {path}")


def check_private_directory(path: Path, what: str) -> None:
    """Raise ``ConfigError`` unless nobody else may list or write the directory ``path``."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigError(f"{what} {path} is open to other users (mode {mode:03o}): chmod 700 {path}")
