"""A commit that fails for want of space, and is on the disk nevertheless: replicas go on behind it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kt_es.errors import DiskFullError
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.rows import StateTable
from kt_es.ledger.store import Change
from kt_es.ledger.tables import FAMILIES
from tests import builders as b
from tests.reference.frontends import Front, front, until
from tests.reference.signed_streams import SignedStreams

SLICE = 2
"""Changes that are kept in memory: so small that an epoch is written in many pieces before its commit."""


class FailedButWritten(MemoryStore):
    """Says of the ``fails``-th commit that there was no space for it, after having written it."""

    def __init__(self, fails: int) -> None:
        super().__init__(FAMILIES)
        self.left = fails

    def write(self, changes: Iterable[Change], sync: bool = True) -> None:
        changes = list(changes)
        super().write(changes, sync)
        if any((family, key) == (StateTable.FAMILY, StateTable.COMMITTED) for family, key, _ in changes):
            self.left -= 1
            if self.left == 0:
                raise DiskFullError(Path("data"))


def test_a_commit_that_was_written_is_not_made_again() -> None:
    streams = SignedStreams()
    for number in range(2):
        # More than one event of records has.
        for user in range(300):
            streams.put_user(f"user {number} {user}")
        streams.epoch()
    for fails in (1, 2):
        store = FailedButWritten(fails)
        made = Front(streams, store, Ledger(store, b.ORIGIN, b.SIGNER_KEY, SLICE))
        with front(streams, wait=False, made=made):
            until(lambda: made.caught_up() or bool(made.errors) or made.directory.failure is not None)  # noqa: B023
            assert made.errors == []
            assert made.directory.failure is None
            assert made.ledger.committed == streams.ledger.committed
        assert store.left <= 0
