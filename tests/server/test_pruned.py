"""A front end whose pages of old epochs were pruned: what it still answers, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kt_es.ledger.retention import prune
from tests import builders as b
from tests.reference.frontends import Front, front
from tests.reference.signed_streams import SignedStreams
from tests.server.test_http import check_problem
from tests.server.test_openapi_document import check_declared

ALICE = b.label_of("alice")
NEWEST, OLDEST = 6, 4


@pytest.fixture(scope="module")
def pruned() -> Iterator[Front]:
    """Alice has a version in each of the epochs 1 to 5. The epochs 4 to 6 are kept."""
    streams = SignedStreams()
    made = None
    for _ in range(NEWEST - 1):
        made = streams.put_user("alice", made)
        streams.epoch()
    streams.epoch()
    with front(streams) as before:
        store = before.store
    assert prune(before.ledger, NEWEST - OLDEST + 1) > 0
    with front(streams, store) as running:
        yield running


@pytest.mark.parametrize("epoch", range(1, NEWEST + 1))
def test_lookups_of_kept_epochs_alone_are_answered(pruned: Front, epoch: int) -> None:
    answer = pruned.post("/v1/lookup", {"label": ALICE, "epoch": epoch})
    check_declared("/v1/lookup", answer)
    if epoch >= OLDEST:
        assert (answer.status_code, answer.json()["epoch"]) == (200, epoch)
        return
    check_problem(answer, 410, "pruned-epoch", "epoch")
    assert answer.json()["detail"] == (
        f"the map of epoch {epoch} is not kept here any more, only those from epoch {OLDEST} on; "
        "ask a front end that keeps more epochs"
    )


@pytest.mark.parametrize(
    ("first", "last", "status", "field"),
    [
        (OLDEST, NEWEST, 200, None),
        (NEWEST, NEWEST, 200, None),
        (OLDEST - 1, NEWEST, 410, "first"),
        (1, OLDEST, 410, "first"),
        (1, OLDEST - 1, 410, "last"),
        (OLDEST, NEWEST + 1, 404, "last"),
    ],
)
def test_ranges_of_kept_epochs_alone_are_answered(
    pruned: Front, first: int, last: int, status: int, field: str | None
) -> None:
    answer = pruned.post("/v1/range", {"label": ALICE, "first": first, "last": last})
    check_declared("/v1/range", answer)
    assert (answer.status_code, answer.json().get("field")) == (status, field)
    if status == 200:
        assert (answer.json()["first"], answer.json()["last"]) == (first, last)
    elif status == 410:
        assert f"only those from epoch {OLDEST} on" in answer.json()["detail"]


def test_all_heads_proofs_of_the_logs_and_versions_are_still_answered(pruned: Front) -> None:
    for epoch in range(1, NEWEST + 1):
        assert pruned.get(f"/v1/heads/{epoch}").json()["epoch"] == epoch
        assert pruned.get(f"/v1/consistency?log=heads&from={epoch}&to={NEWEST}").status_code == 200
    versions = pruned.post("/v1/history", {"label": ALICE}).json()["versions"]
    assert [(version["version"], version["epoch"]) for version in versions] == [(n, n) for n in range(1, 6)]
    check_problem(pruned.get(f"/v1/heads/{NEWEST + 1}"), 404, "unknown-epoch", "epoch")
