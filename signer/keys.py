"""The consequences of the config in force: the key that signs, and the end of an epoch.

A rotation needs the old and the new key at the same time. The config says which of them signs.
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

    A key that is missing is looked for in ``directory`` again, because a rotation puts it there while the
    signer runs.
    """

    def __init__(self, keys: Iterable[PrivateKey], directory: Path | None = None) -> None:
        self._keys = {PublicKey(key.algorithm, key.public): key for key in keys}
        self._directory = directory

    @classmethod
    def load(cls, directory: Path) -> KeyRing:
        """Load every ``*.pem`` of ``directory``, as ``load_keys`` does."""
        return cls(load_keys(directory).values(), directory)

    def key_for(self, public: PublicKey) -> PrivateKey:
        """Return the private key of ``public``; ``ConfigError`` if there is none."""
        if public not in self._keys and self._directory is not None:
            self._keys |= KeyRing.load(self._directory)._keys
        if public not in self._keys:
            raise ConfigError(
                f"the signer has no private key for the config's signer key {public.id.hex()}: "
                f"copy its *.pem into the folder of `signer.keys`"
            )
        return self._keys[public]


def load_keys(directory: Path) -> dict[Path, PrivateKey]:
    """Return the key of every ``*.pem`` of ``directory`` by its path.

    Raises ``ConfigError`` if there is no such file, or if one of them cannot be used.
    """
    paths = sorted(directory.glob("*.pem")) if directory.is_dir() else []
    if not paths:
        raise ConfigError(f"there is no signer key (*.pem) in {directory}: run `kt init` or restore it")
    return {path: load_key(path) for path in paths}


def load_key(path: Path) -> PrivateKey:
    """Return the private key in a PEM file, which ``read_key`` checks."""
    return read_key(path, "the signer key", PrivateKey.from_pem)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Intervals in seconds, from the config in force; ``batch_limit`` is in items."""

    min_interval: float
    max_interval: float
    batch_limit: int

    @classmethod
    def of(cls, config: Config, batch_limit: int) -> Schedule:
        """Return the schedule that keeps the promise of ``config``. It has a margin to decide, sign and read.

        The heartbeat comes after three quarters of ``max_interval``, so that a head is never the older
        of the two that a client may see.
        """
        return cls(config.min_interval / 1000, config.max_interval / 1000 * 0.75, batch_limit)

    def wants_marker(
        self, since_marker: float, since_head: float, staged: int, *, new_config: bool = False
    ) -> bool:
        """Return whether an epoch with ``staged`` items should end.

        With ``new_config`` it is the first epoch under its config. Such an epoch ends even without items: the
        operator waits for a head under the new intervals or the new key, above all after a theft.

        ``since_marker`` are seconds of the monotonic clock since this signer's last marker, or since it
        became active. ``since_head`` are seconds of the wall clock since the last head's timestamp: they
        count across restarts, outages and takeovers, so a head that is due comes at once. The monotonic
        clock continues when the wall clock steps back.
        """
        if staged >= self.batch_limit or max(since_marker, since_head) >= self.max_interval:
            return True
        return (staged > 0 or new_config) and since_marker >= self.min_interval
