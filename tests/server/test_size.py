"""The size of lookup answers on the wire: at most 2.5 kB without the profile at 100,000 entries."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kt_es.client.trust import verify_lookup
from kt_es.client.trusted import Trusted
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.tables import FAMILIES
from tests import builders as b
from tests.reference.frontends import Front
from tests.reference.large_ledger import large_ledger
from tests.reference.signed_streams import SignedStreams

ENTRIES = 100_000
EPOCHS = 1_024  # of all logs up to this size, this one has the longest proof of its last head
USERS = [f"user{n}" for n in range(40)]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with_store = RocksStore.open(tmp_path_factory.mktemp("large") / "data", FAMILIES)
    large_ledger(with_store, ENTRIES, EPOCHS, USERS)
    made = Front(SignedStreams(), with_store)
    made.running.watch.probe()
    yield made
    made.running.stop()
    with_store.close()


def test_answers_are_at_most_2500_bytes(large: Front) -> None:
    assert large.ledger.committed.root.size == ENTRIES
    for user in USERS:
        answer = large.post("/v1/lookup", {"label": b.label_of(user), "profile": False})
        assert answer.status_code == 200
        assert len(answer.content) <= 2_500
    for number in range(len(USERS)):
        absent = large.post("/v1/lookup", {"label": f"nobody{number}@example.org", "profile": False})
        assert len(absent.content) <= 2_500


def test_an_epoch_of_a_range_takes_some_1200_bytes(large: Front) -> None:
    first, last = EPOCHS - 255, EPOCHS
    for label in (b.label_of(USERS[0]), "nobody@example.org"):
        answer = large.post("/v1/range", {"label": label, "first": first, "last": last})
        assert answer.json()["last"] == last
        assert len(answer.content) <= 1_200 * 256


def test_they_verify(large: Front) -> None:
    trusted = Trusted(b.ORIGIN, b.SIGNER_KEY, (b.signed_config(),), 0, None)
    for user, there in ((USERS[0], True), ("nobody", False)):
        found = large.directory.lookup(b.label_of(user), profile=False)
        _, lookup = verify_lookup(
            trusted,
            b.label_of(user),
            found.answer,
            None,
            found.consistency,
            now=b.START + EPOCHS * 1_000 + 2_000,
        )
        assert lookup.absent is not there
