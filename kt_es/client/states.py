"""The files of one person: signing keys, and a state for each directory.

The folder ``origins/<origin>/`` has the state towards a directory (``state.FileStateStore``). ``servers.db``
maps the address of a server to its directory. Earlier versions of kt-es kept a state for each address and
each key under ``directories/``. These states are found and merged.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from kt_es.client.database import StateDatabase
from kt_es.client.state import FileStateStore, read_trusted
from kt_es.client.trusted import Pinned, Trusted
from kt_es.crypto.hashes import sha256
from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import ConfigError
from kt_es.formats.entries import PublicKey
from kt_es.process.files import check_private_directory, create_file, read_key
from kt_es.process.space import unwritable

# Options accept names and key ids, so a name must not have the form of a key id.
_KEY_ID = re.compile(r"[0-9a-fA-F]{16}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+\-]{0,127}")
_SUFFIX = ".pem"


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key in the store. ``public`` is its form in entries."""

    name: str
    path: Path
    private: PrivateKey

    @property
    def public(self) -> PublicKey:
        return PublicKey(self.private.algorithm, self.private.public)


class KeyStore:
    """The keys in ``directory`` (mode 0700). Every failure is a ``ConfigError`` that names the file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def add(self, name: str, key: PrivateKey) -> StoredKey:
        """Store ``key`` durably under ``name``. A name that exists already is refused."""
        path = self._path(name)
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_directory()
            create_file(path, key.to_pem())
        except FileExistsError:
            raise ConfigError(f"the key {name} exists already: {path}; choose another name") from None
        except OSError as error:
            raise unwritable(path, error) from None
        return StoredKey(name, path, key)

    def get(self, name: str) -> StoredKey:
        """Return the key stored under ``name``."""
        path = self._path(name)
        if not os.path.lexists(path):
            raise ConfigError(f"there is no key {name} in {self._directory}; `kt keys list` shows its keys")
        self._check_directory()
        return StoredKey(name, path, read_key(path, "the signing key", PrivateKey.from_pem))

    def list(self) -> tuple[StoredKey, ...]:
        """Return all keys, sorted by name; empty if the directory does not exist yet."""
        if not self._directory.exists():
            return ()
        try:
            self._check_directory()
            names = [path.name.removesuffix(_SUFFIX) for path in self._directory.glob(f"*{_SUFFIX}")]
        except OSError as error:
            raise ConfigError(f"cannot read the keys in {self._directory}: {error.strerror}") from None
        return tuple(self.get(name) for name in sorted(names))

    def _path(self, name: str) -> Path:
        if _KEY_ID.fullmatch(name):
            raise ConfigError(f"{name} has the form of a key id and cannot name a key; choose another name")
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} cannot name a key: use letters, digits and ._@+-, beginning with a letter or digit"
            )
        return self._directory / f"{name}{_SUFFIX}"

    def _check_directory(self) -> None:
        try:
            check_private_directory(self._directory, "the directory of signing keys")
        except OSError as error:
            raise ConfigError(f"cannot read the keys in {self._directory}: {error.strerror}") from None


_KIND = "server"
_LONGEST = 200  # bytes of a file name, of which file systems take 255


class States:
    """All states under ``root``."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def of(self, origin: str) -> FileStateStore:
        """Return the state towards the directory ``origin``. Its folder is created with the first value."""
        return FileStateStore(self._root / "origins" / file_name(origin))

    def existing(self, origin: str) -> FileStateStore | None:
        """Return the state towards ``origin``, None if there is none yet."""
        store = self.of(origin)
        return None if store.load() is None else store

    def at(self, server: str, pinned: Pinned | None) -> ServerStateStore:
        """Return the state towards the directory of ``pinned``, by default the directory of ``server``."""
        return ServerStateStore(self, server, None if pinned is None else pinned.origin)

    def origin_of(self, server: str) -> str | None:
        """Return the directory to which ``server`` belongs, None if the server was never asked."""
        known = self._servers.recall(_KIND, address_of(server).encode())
        return None if known is None else known.decode()

    def bind(self, server: str, origin: str) -> None:
        """Remember that ``server`` belongs to the directory ``origin``."""
        self._servers.remember(_KIND, address_of(server).encode(), origin.encode())

    def older_origin_of(self, server: str) -> str | None:
        """Return the directory of ``server`` in the state that earlier versions kept for its address."""
        old = self._old_states() / _old_name(server) / "trusted"
        return read_trusted(old).origin if old.is_file() else None

    def older(self, server: str, origin: str) -> Iterator[tuple[Path, Trusted]]:
        """The states of ``origin`` that earlier versions of kt-es kept, with their folders.

        Raises ``ConfigError`` for a damaged state if its name is that of ``origin`` or ``server``.
        """
        ours = (_old_name(server), _old_name(origin) + "+")
        for path in sorted(self._old_states().glob("*/trusted")):
            try:
                trusted = read_trusted(path)
            except ConfigError:
                if path.parent.name == ours[0] or path.parent.name.startswith(ours[1]):
                    raise
                continue
            if trusted.origin == origin:
                yield path.parent, trusted

    @property
    def _servers(self) -> StateDatabase:
        return StateDatabase(self._root / "servers.db")

    def _old_states(self) -> Path:
        return self._root / "directories"


class ServerStateStore:
    """The state towards the directory of one server.

    The directory is known from the beginning if a key was given or the server was asked before. Otherwise the
    first stored state decides. Then the address is bound to that directory.
    """

    def __init__(self, states: States, server: str, origin: str | None) -> None:
        self._states = states
        self._server = server
        self._bound = states.origin_of(server)
        self.origin = origin or self._bound or states.older_origin_of(server)
        """The directory to which the server has to belong, None if it may be any."""
        # Set once. The states of other directories cannot be reached afterwards.
        self._store = None if self.origin is None else states.of(self.origin)
        self._older = {} if self.origin is None else dict(states.older(server, self.origin))

    def load(self) -> Trusted | None:
        return None if self._store is None else self._store.load()

    def replace(self, expected: Trusted | None, new: Trusted) -> bool:
        if self._store is None:
            self._store = self._states.of(new.origin)
            self._older = dict(self._states.older(self._server, new.origin))
            if self._older:
                return False
        if not self._store.replace(expected, new):
            return False
        if self._bound != new.origin:
            self._states.bind(self._server, new.origin)
            self._bound = new.origin
        return True

    def recall(self, kind: str, key: bytes) -> bytes | None:
        return None if self._store is None else self._store.recall(kind, key)

    def remember(self, kind: str, key: bytes, data: bytes) -> None:
        self._known().remember(kind, key, data)

    def exchange(
        self, kind: str, key: bytes, expected: bytes | None, data: bytes, *, synced: bool = True
    ) -> bool:
        return self._known().exchange(kind, key, expected, data, synced=synced)

    def save_evidence(self, data: bytes) -> Path | None:
        return None if self._store is None else self._store.save_evidence(data)

    def evidence(self) -> Sequence[tuple[bytes, Path | None]]:
        return () if self._store is None else self._store.evidence()

    def older(self) -> Sequence[Trusted]:
        return tuple(self._older.values())

    def settle(self, old: Trusted) -> None:
        for folder in [folder for folder, trusted in self._older.items() if trusted == old]:
            del self._older[folder]
            try:
                (folder / "trusted").unlink(missing_ok=True)
                (folder / "lock").unlink(missing_ok=True)
                if not any(folder.iterdir()):
                    folder.rmdir()
            except OSError as error:
                raise ConfigError(f"cannot move the old state {folder}: {error.strerror}") from None

    def _known(self) -> FileStateStore:
        if self._store is None:
            raise ConfigError(
                f"the directory of {address_of(self._server)} is not known yet; look an account up first"
            )
        return self._store


def file_name(origin: str) -> str:
    """Return the name of the folder of ``origin``, which no other origin has, even where case is ignored."""
    name = re.sub(r"[^a-z0-9.\-_~]", lambda found: f"%{ord(found[0]):02X}", origin)
    return name if len(name) <= _LONGEST else f"{name[:120]}%{sha256(origin.encode()).hex()}"


def address_of(server: str) -> str:
    """Return the URL of a server as it is stored: without user name, password, query and fragment."""
    try:
        parts = urlsplit(server)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ConfigError(f"the server's address is unusable: {error}") from None
    host = f"[{host}]" if ":" in host else host
    named = host if port is None else f"{host}:{port}"
    return f"{parts.scheme}://{named}{parts.path.rstrip('/')}"


def _old_name(known_by: str) -> str:
    """Return the folder name in earlier versions of kt-es for a server's URL, or for an origin and a key."""
    return re.sub(r"[^A-Za-z0-9.+\-]+", "_", known_by.removeprefix("https://").rstrip("/"))
