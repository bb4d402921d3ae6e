"""The state of a client: what it trusts, what it remembers of accounts, and evidence.

The promise: a value for which ``replace`` or ``exchange`` has returned True survives a crash, and only a
caller that has read it can replace it. So two processes that share a state never set it back to an older
checkpoint, nor a memory to an older version.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from kt_es.client.database import StateDatabase
from kt_es.client.trusted import MAX_TRUSTED_FILE, Trusted
from kt_es.crypto.hashes import sha256
from kt_es.errors import ConfigError, DiskFullError, KtError, MalformedError
from kt_es.formats.evidence import MAX_EVIDENCE_FILE
from kt_es.process.files import read_private, replace_file
from kt_es.process.space import is_full, unwritable

_EVIDENCE = ".evidence"
_T = TypeVar("_T")


class StateStore(Protocol):
    """The state of one client towards one directory; safe for threads."""

    def load(self) -> Trusted | None:
        """Return the stored state, None before the first one."""

    def replace(self, expected: Trusted | None, new: Trusted) -> bool:
        """Store ``new`` durably if ``expected`` is stored; otherwise change nothing and return False."""

    def recall(self, kind: str, key: bytes) -> bytes | None:
        """Return the value under ``kind`` and ``key``, None if there is none."""

    def remember(self, kind: str, key: bytes, data: bytes) -> None:
        """Store ``data`` durably in place of the value before."""

    def exchange(
        self, kind: str, key: bytes, expected: bytes | None, data: bytes, *, synced: bool = True
    ) -> bool:
        """Store ``data`` if ``expected`` is the stored value; otherwise change nothing and return False.

        A change that is not ``synced`` survives the process, but a power failure may undo it. A synced change
        of the memory makes all changes of the memory before it survive a power failure as well.
        """

    def save_evidence(self, data: bytes) -> Path | None:
        """Store encoded evidence. Returns its file, None if no disk could store it. Never raises."""

    def evidence(self) -> Sequence[tuple[bytes, Path | None]]:
        """Return all evidence that ``save_evidence`` has stored, with its files."""

    def older(self) -> Sequence[Trusted]:
        """States of the same directory that earlier versions of kt-es kept. The caller merges them."""

    def settle(self, old: Trusted) -> None:
        """Remove ``old``, one of ``older``: it is part of the stored state now."""


class MemoryStateStore:
    """State in this process only: for tests, and for single questions on machines without a disk."""

    def __init__(self, trusted: Trusted | None = None) -> None:
        self._trusted = trusted
        self._memory: dict[tuple[str, bytes], bytes] = {}
        self._evidence: dict[bytes, None] = {}
        self._lock = threading.Lock()

    def load(self) -> Trusted | None:
        return self._trusted

    def replace(self, expected: Trusted | None, new: Trusted) -> bool:
        with self._lock:
            if self._trusted != expected:
                return False
            self._trusted = new
            return True

    def recall(self, kind: str, key: bytes) -> bytes | None:
        return self._memory.get((kind, key))

    def remember(self, kind: str, key: bytes, data: bytes) -> None:
        with self._lock:
            self._memory[kind, key] = data

    def exchange(
        self, kind: str, key: bytes, expected: bytes | None, data: bytes, *, synced: bool = True
    ) -> bool:
        with self._lock:
            if self._memory.get((kind, key)) != expected:
                return False
            self._memory[kind, key] = data
            return True

    def save_evidence(self, data: bytes) -> Path | None:
        """Store encoded evidence in this process. It has no file."""
        with self._lock:
            self._evidence[data] = None
        return None

    def evidence(self) -> Sequence[tuple[bytes, Path | None]]:
        return [(data, None) for data in self._evidence]

    def older(self) -> Sequence[Trusted]:
        return ()

    def settle(self, old: Trusted) -> None:
        """There are no older states."""


def read_trusted(path: Path) -> Trusted:
    """Read the state in the file ``path``. Raises ``ConfigError`` if it is damaged or cannot be read."""
    data = _read(path)
    if data is None:
        raise ConfigError(f"there is no trusted state {path}; look an account up first")
    return _decode(path, data)


def decoded(data: bytes | None, decode: Callable[[bytes], _T], what: str) -> _T | None:
    """Decode a value of a state, None where there is none. A damaged value raises ``ConfigError``.

    A silent new start would lose the state that protects from a second history.
    """
    try:
        return None if data is None else decode(data)
    except MalformedError as error:
        raise damaged(what, error) from None


def damaged(what: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"{what} is damaged: {error}. Put a copy of memory.db in its place, or remove it to forget everything"
    )


def _read(path: Path) -> bytes | None:
    if not os.path.lexists(path):
        return None
    return read_private(path, "the trusted state", MAX_TRUSTED_FILE)


def _decode(path: Path, data: bytes) -> Trusted:
    try:
        return Trusted.decode(data)
    except MalformedError as error:
        # A silent new start would lose the state that protects from a second history of the directory.
        raise ConfigError(
            f"the trusted state {path} is damaged ({error}); "
            "remove it only if you mean to trust the directory anew"
        ) from None


def _read_evidence(path: Path) -> tuple[bytes, Path]:
    try:
        with path.open("rb") as file:
            return file.read(MAX_EVIDENCE_FILE + 1), path
    except OSError as error:
        raise ConfigError(f"the evidence {path} cannot be read: {error.strerror}") from None


class FileStateStore:
    """State in a separate directory: ``trusted``, ``memory.db`` and ``evidence/``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._trusted = directory / "trusted"
        self._evidence = directory / "evidence"
        self._memory = StateDatabase(directory / "memory.db")
        self._read: tuple[bytes, Trusted] | None = None

    def load(self) -> Trusted | None:
        data = _read(self._trusted)
        if data is None:
            return None
        # Each lookup begins here. Most lookups find the state that the lookup before has stored.
        read = self._read
        if read is None or read[0] != data:
            read = self._read = (data, _decode(self._trusted, data))
        return read[1]

    def replace(self, expected: Trusted | None, new: Trusted) -> bool:
        if new == expected:
            # Nothing is written, so no lock is needed.
            return self.load() == expected
        with self._locked():
            if self.load() != expected:
                return False
            replace_file(self._trusted, new.encode())
            return True

    def recall(self, kind: str, key: bytes) -> bytes | None:
        return self._memory.recall(kind, key)

    def remember(self, kind: str, key: bytes, data: bytes) -> None:
        self._memory.remember(kind, key, data)

    def exchange(
        self, kind: str, key: bytes, expected: bytes | None, data: bytes, *, synced: bool = True
    ) -> bool:
        return self._memory.exchange(kind, key, expected, data, synced=synced)

    def save_evidence(self, data: bytes) -> Path | None:
        """Store ``data`` in a file under ``evidence/``, named by its hash: the same bytes are one file."""
        path = self._evidence / f"{sha256(data).hex()[:32]}{_EVIDENCE}"
        try:
            with self._locked():
                path.parent.mkdir(mode=0o700, exist_ok=True)
                if not path.is_file() or path.read_bytes() != data:
                    replace_file(path, data)
        except (KtError, OSError):
            return None
        return path

    def evidence(self) -> Sequence[tuple[bytes, Path | None]]:
        """Raises ``ConfigError`` if a file cannot be read, because it may convict this directory."""
        try:
            paths = sorted(self._evidence.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return ()  # A file in place of the folder prevents saving evidence, but hides none.
        except OSError as error:
            raise ConfigError(f"{self._evidence} cannot be read: {error.strerror}") from None
        # A file whose name begins with a dot is still being written. All other files count.
        return [_read_evidence(path) for path in paths if not path.name.startswith(".")]

    def older(self) -> Sequence[Trusted]:
        return ()

    def settle(self, old: Trusted) -> None:
        """There are no older states here. ``states`` knows where earlier versions kept them."""

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock out other processes, and other threads, because each of them opens its own descriptor."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(
                self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        except OSError as error:
            if is_full(error):
                raise DiskFullError(self._directory) from None
            raise ConfigError(f"cannot use the state directory {self._directory}: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        except OSError as error:
            raise unwritable(self._directory, error) from None
        finally:
            os.close(lock)
