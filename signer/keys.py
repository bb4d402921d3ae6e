"""What the signer takes from the config in force: its keys and its schedule.

A rotation needs the old and the new key side by side; which of them signs is what the config says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import ConfigError
from kt_es.formats.configs import Config
from kt_es.formats.entries import PublicKey
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


@dataclass(frozen=True, slots=True)
class Schedule:
    """Intervals in seconds, from the config in force; ``batch_limit`` is in items."""

    min_interval: float
    max_interval: float
    batch_limit: int

    @classmethod
    def of(cls, config: Config, batch_limit: int) -> Schedule:
        """The config's promise, with a margin: an epoch also has to be decided, signed and read.

        The heartbeat comes after three quarters of ``max_interval``, so that a head is never the older
        of the two that a client may see.
        """
        return cls(config.min_interval / 1000, config.max_interval / 1000 * 0.75, batch_limit)

    def wants_marker(
        self, since_marker: float, since_head: float, staged: int, *, new_config: bool = False
    ) -> bool:
        """Whether an epoch with ``staged`` items should end.

        With ``new_config`` it is the first epoch under its config. It ends without items, too: the
        operator waits for a head under the new intervals or the new key, after a theft above all.

        ``since_marker`` are seconds of the monotonic clock since this signer's last marker, or since it
        became active. ``since_head`` are seconds of the wall clock since the last head's timestamp: they
        count across restarts, outages and takeovers, so a head that is due comes at once. The monotonic
        clock goes on where the wall clock steps back.
        """
        if staged >= self.batch_limit or max(since_marker, since_head) >= self.max_interval:
            return True
        return (staged > 0 or new_config) and since_marker >= self.min_interval
