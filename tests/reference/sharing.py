"""A directory over a shared store in memory, whose replicas may lag, lie and be away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kt_es.errors import UnavailableError
from kt_es.eventstore.streams import EventLog
from kt_es.ledger.adoption import Adoption
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.shared_store import LOCAL, SHARED, SharedStore
from kt_es.ledger.store import Change, Store
from tests import builders as b
from tests.reference.signed_streams import SignedStreams


class Replicas(Store):
    """A shared store: rows that a majority has, and what the replica that is asked first says instead.

    Attributes:
        majority: What reads with ``again`` and scans find.
        first: Rows that reads without ``again`` find instead, by family and key; None for a missing one.
        away: Every call fails.
        asked: Family, key and ``again`` of each row that was read.
    """

    def __init__(self) -> None:
        self.majority = MemoryStore(SHARED)
        self.first: dict[tuple[str, bytes], bytes | None] = {}
        self.away = False
        self.asked: list[tuple[str, bytes, bool]] = []

    @property
    def is_shared(self) -> bool:
        return True

    def get(self, family: str, key: bytes) -> bytes | None:
        return self.get_many(family, [key])[0]

    def get_many(self, family: str, keys: Sequence[bytes], *, again: bool = False) -> list[bytes | None]:
        self._reach()
        self.asked += [(family, key, again) for key in keys]
        rows = self.majority.get_many(family, keys)
        if again:
            return rows
        return [self.first.get((family, key), row) for key, row in zip(keys, rows, strict=True)]

    def scan(
        self, family: str, prefix: bytes = b"", *, start: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        self._reach()
        yield from self.majority.scan(family, prefix, start=start, reverse=reverse)

    def write(self, changes: Iterable[Change], sync: bool = True) -> None:
        self._reach()
        self.majority.write(changes)

    def close(self) -> None:
        """The rows stay for the next process."""

    def _reach(self) -> None:
        if self.away:
            raise UnavailableError("no node of the shared store answers")

    def rows(self, family: str) -> dict[bytes, bytes]:
        return dict(self.majority.scan(family))

    def lag(self, *families: str) -> None:
        """Let the replica that is asked first have none of the present rows of ``families``."""
        self.first |= {(family, key): None for family in families for key in self.rows(family)}


def store_of(replicas: Store, local: Store | None = None, cache_bytes: int = 1 << 20) -> SharedStore:
    """``replicas`` as one more process sees them, by default one without a disk."""
    return SharedStore(MemoryStore(LOCAL) if local is None else local, replicas, cache_bytes)


def ledger_of(replicas: Replicas, local: Store | None = None) -> Ledger:
    return Ledger(store_of(replicas, local), b.ORIGIN, b.SIGNER_KEY)


class SharedStreams(SignedStreams):
    """A signer over ``replicas``, and what other processes have of its directory."""

    def __init__(self, log: EventLog | None = None) -> None:
        self.replicas = Replicas()
        super().__init__(log, store=store_of(self.replicas))

    def adoption(self, local: Store | None = None, *, completes: bool = False) -> Adoption:
        """What another process follows the heads by."""
        return Adoption(self.log, self.names, ledger_of(self.replicas, local), completes=completes)
