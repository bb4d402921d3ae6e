"""A user's signing keys on disk: one PEM file (PKCS#8) for each name, readable by nobody else."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import ConfigError
from kt_es.formats.keys import PublicKey
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
            raise ConfigError(f"the key {name} exists already: {path}") from None
        except OSError as error:
            raise unwritable(path, error) from None
        return StoredKey(name, path, key)

    def get(self, name: str) -> StoredKey:
        """Return the key stored under ``name``."""
        path = self._path(name)
        if not os.path.lexists(path):
            raise ConfigError(f"there is no key {name} in {self._directory}")
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
            raise ConfigError(f"{name} cannot name a key: it has the form of a key id")
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
