"""Changes of the directory's config: the chain of configs, a signed change of it, and the head that has it.

The operator who signs a change has the signer's data directory. Its last commit has the chain of configs,
and the queue after that commit has the later changes. The verdict on a change depends on other changes only,
so it is known as soon as the queue has the item.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import (
    ConfigError,
    DivergenceError,
    MalformedError,
    RefusedError,
    UnavailableError,
    VerificationError,
)
from kt_es.eventstore.streams import ANY, Event, EventLog, StreamNames, content_event
from kt_es.formats.configs import Config, SignedConfig, check_config_change, check_first_config
from kt_es.formats.entries import PublicKey
from kt_es.formats.heads import HeadEvent, MapHead, SignedMapHead
from kt_es.formats.queue import CONFIG
from kt_es.ledger.ledger import Ledger, config_chain
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.tables import FAMILIES

PAUSE = 0.2


@dataclass(frozen=True, slots=True)
class Base:
    """The chain of configs up to an epoch, and the revision of the queue where the next epoch begins."""

    chain: tuple[SignedConfig, ...] = ()
    queue_next: int = 0

    @classmethod
    def of(cls, ledger: Ledger) -> Base:
        """Return the base at the committed epoch of ``ledger``."""
        committed = ledger.committed
        return cls(config_chain(ledger, committed), committed.queue_next) if committed.epoch else cls()


def base_of(data: Path, origin: str, pinned: PublicKey) -> Base:
    """Read the signer's data directory, also while the signer runs. Without one, the chain is empty."""
    if not (data / "CURRENT").is_file():
        return Base()
    store = RocksStore.view(data, FAMILIES)
    try:
        return Base.of(Ledger(store, origin, pinned))
    finally:
        store.close()


class ConfigChanges:
    """The configs of one directory, and their next change."""

    def __init__(self, log: EventLog, names: StreamNames, origin: str, pinned: PublicKey, base: Base) -> None:
        self._log = log
        self._names = names
        self._origin = origin
        self._pinned = pinned
        self._base = base

    def chain(self) -> tuple[SignedConfig, ...]:
        """Return every config up to the latest change in the queue, the oldest first.

        Raises ``ConfigError`` if the queue misses events, ``DivergenceError`` if it is another directory's.
        """
        chain, expected = list(self._base.chain), self._base.queue_next
        for event in self._log.read(self._names.queue, expected):
            if event.revision != expected:
                raise ConfigError(
                    f"{self._names.queue} is truncated behind what the signer's data have: "
                    f"start the signer, or name its data with --data"
                )
            expected += 1
            chain += self._accepted(event, chain)
        if not chain:
            raise ConfigError(f"{self._names.queue} has no config yet: run `kt init`")
        if all(signed.config.signer_key != self._pinned for signed in chain):
            raise DivergenceError(
                f"the key {self._pinned.id.hex()} never was a signer key of {self._origin}: "
                f"kt.toml or the log is another directory's"
            )
        self._base = Base(tuple(chain), expected)
        return self._base.chain

    def _accepted(self, event: Event, chain: Sequence[SignedConfig]) -> list[SignedConfig]:
        """Return the config in a queue event if it is accepted after ``chain``."""
        if event.type != CONFIG:
            return []
        try:
            signed = SignedConfig.decode(event.data)
            if chain:
                check_config_change(signed, chain[-1].config)
            else:
                check_first_config(signed, self._origin, signed.config.signer_key)
        except (MalformedError, VerificationError) as error:
            if not chain:
                raise DivergenceError(f"{self._names.queue} begins with no config: {error}") from None
            return []
        return [signed]

    def submit(self, signed: SignedConfig) -> None:
        """Put a change into the queue, durably. Raises ``RefusedError`` if another change came first."""
        event = content_event(self._names.queue, CONFIG, signed.encode())
        self._log.append(self._names.queue, ANY, [event])
        if signed not in self.chain():
            raise RefusedError("conflict", "another change of the config came first; look at it, then repeat")

    def in_force(self, config: Config) -> MapHead | None:
        """Return the latest head if it is signed under ``config`` or a later one, else None."""
        event = self._log.last_event(self._names.heads)
        if event is None:
            return None
        signed = SignedMapHead.decode(HeadEvent.decode(event.data).smh_bytes)
        configs = [one.config for one in self.chain()]
        hashes = [one.hash for one in configs]
        if signed.head.config_hash not in hashes:
            raise DivergenceError(
                f"the head of epoch {signed.head.epoch} is under the config {signed.head.config_hash.hex()}, "
                f"which {self._names.queue} does not have: kt.toml or the log is another directory's"
            )
        at = hashes.index(signed.head.config_hash)
        head = signed.verify(self._origin, configs[at].signer_key)
        return head if at >= hashes.index(config.hash) else None

    def wait(self, config: Config, seconds: float, clock: Callable[[], float] = time.monotonic) -> MapHead:
        """Wait for the first head under ``config`` or a later config.

        Raises ``UnavailableError`` if no such head comes in time. The change is not lost then.
        """
        until = clock() + seconds
        while (head := self.in_force(config)) is None:
            if clock() >= until:
                raise UnavailableError(
                    f"no head is under the new config after {seconds:.0f} s: is the signer running? "
                    f"The change is in the queue; repeat the command to wait for it"
                )
            time.sleep(PAUSE)
        return head


def following(current: Config, **changed: object) -> Config:
    """Return the config that changes ``current``. Raises ``ConfigError`` for values that readers refuse."""
    config = replace(current, previous=current.hash, **changed)  # type: ignore[arg-type]
    try:
        return Config.decode(config.encode())
    except MalformedError as error:
        raise ConfigError(str(error)) from None


def sign_change(config: Config, keys: Sequence[PrivateKey]) -> SignedConfig:
    """Sign ``config`` by each of ``keys`` once: by the key in force and, in a rotation, by the new one."""
    return SignedConfig.sign(config, list({key.public: key for key in keys}.values()))
