"""The sample of a shared store that a front end takes: from a quorum, and not from its memory."""

from __future__ import annotations

import pytest

from kt_es.errors import UnverifiedRowError
from kt_es.ledger.authorized import entry_at
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.present import check_present
from kt_es.ledger.proofs import prove_head
from tests import builders as b
from tests.reference.sharing import Replicas, SharedStreams

USERS = ("anna", "bert", "cora", "dirk", "elsa")


@pytest.fixture
def streams() -> SharedStreams:
    """A directory with five epochs, in each of which another account has published."""
    streams = SharedStreams()
    for user in USERS:
        streams.put_user(user)
        streams.epoch()
    return streams


@pytest.fixture
def ledger(streams: SharedStreams) -> Ledger:
    """A process over the shared store that has the rows of lookups of all accounts in memory."""
    adoption = streams.adoption()
    list(adoption.jump())
    ledger = adoption.ledger
    root = ledger.committed.root
    for user in USERS:
        assert entry_at(ledger, root, ledger.map.lookup(root, b.index(user))) == b.mutation(user)
    prove_head(ledger, ledger.committed, len(USERS))
    return ledger


def spoil(replicas: Replicas, family: str) -> None:
    """Make all rows of ``family`` wrong in the majority, but not in the replica that is asked first."""
    good = replicas.rows(family)
    replicas.first |= {(family, key): row for key, row in good.items()}
    wrong = {key: bytes([row[0] ^ 1]) + row[1:-1] + bytes([row[-1] ^ 1]) for key, row in good.items()}
    replicas.majority.write([(family, *row) for row in wrong.items()])


@pytest.mark.parametrize(
    ("family", "problem"),
    [
        ("nodes", "^the log of heads has wrong nodes"),
        ("pages", "^map page root of version 5 is damaged"),
        ("entries", "^8 accounts were taken at random, and a page or an entry of each is missing or wrong"),
    ],
)
def test_rows_that_are_right_in_memory_and_in_one_replica_are_no_rows_of_the_store(
    streams: SharedStreams, ledger: Ledger, family: str, problem: str
) -> None:
    check_present(ledger)
    spoil(streams.replicas, family)
    with pytest.raises(UnverifiedRowError, match=problem):
        check_present(ledger)
