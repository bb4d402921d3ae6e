"""The signer's private keys: one PEM file each in a directory, chosen by the config in force.

A rotation needs the old and the new key side by side; which of them signs is what the config says.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import ConfigError
from kt_es.formats.keys import PublicKey
from kt_es.process.files import read_key


class KeyRing:
    """Private keys by their public ones.

    With ``directory`` a key that is missing is looked for there again: a rotation puts it beside the others
    while the signer runs.
    """

    def __init__(self, keys: Iterable[PrivateKey], directory: Path | None = None) -> None:
        self._keys = {PublicKey(key.algorithm, key.public): key for key in keys}
        self._directory = directory

    @classmethod
    def load(cls, directory: Path) -> KeyRing:
        """Every ``*.pem`` of ``directory``; ``ConfigError`` names what cannot be read."""
        return cls(load_keys(directory).values(), directory)

    def key_for(self, public: PublicKey) -> PrivateKey:
        """The private key of ``public``, else ``ConfigError``: nothing can be signed without it."""
        if public not in self._keys and self._directory is not None:
            self._keys |= {
                PublicKey(key.algorithm, key.public): key for key in load_keys(self._directory).values()
            }
        key = self._keys.get(public)
        if key is None:
            raise ConfigError(f"the signer has no private key for the config's signer key {public.id.hex()}")
        return key


def load_keys(directory: Path) -> dict[Path, PrivateKey]:
    """Every ``*.pem`` of ``directory`` by its path; ``ConfigError`` if there is none or one is unusable."""
    paths = sorted(directory.glob("*.pem")) if directory.is_dir() else []
    if not paths:
        raise ConfigError(f"there is no signer key (*.pem) in {directory}: run `kt init` or restore it")
    return {path: load_key(path) for path in paths}


def load_key(path: Path) -> PrivateKey:
    """The private key in a PEM file; ``ConfigError`` names the file and what is wrong with it.

    A file that other users can read is refused: whoever has the key signs for the directory.
    """
    return read_key(path, "the signer key", PrivateKey.from_pem)
