"""Batch lookups out of a replica that followed real streams, beside single lookups of the same labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kt_es.api.batches import LookupsBody
from kt_es.crypto.vrf import index_of
from kt_es.errors import RefusedError, UnavailableError
from kt_es.formats.batches import MAX_BATCH, BatchAnswer
from kt_es.formats.proofs import LookupAnswer
from kt_es.merkle.multiproof import expand
from kt_es.server import batches
from kt_es.server.batches import BatchReader
from kt_es.server.limits import ClientLimits
from tests import builders as b
from tests.reference.doors import listening
from tests.reference.frontends import Front, erasure, front, front_with_alice, until
from tests.reference.sharing import SharedStreams, store_of
from tests.reference.signed_streams import SignedStreams

USERS = ["alice", "bob", *(f"user{number}" for number in range(60))]
LABELS = [b.label_of(user) for user in USERS]
# Fewer present labels than a step has, absent ones between them, and not in the order of their indices.
ASKED = [label for number, present in enumerate(LABELS) for label in (present, f"nobody{number}@example.org")]


def streams_of(made: SignedStreams) -> SignedStreams:
    for user in USERS:
        made.put_user(user)
    made.epoch()
    made.put_user("alice", b.mutation("alice"))
    made.epoch()
    made.epoch()
    return made


@pytest.fixture(scope="module")
def running() -> Iterator[Front]:
    with front(streams_of(SignedStreams())) as made:
        erased = made.post("/v1/erasures", erasure("bob"))
        assert erased.status_code == 202
        made.streams.epoch()
        until(made.caught_up)
        yield made


def looked_up(made: Front, labels: list[str], **asked: Any) -> LookupsBody:
    return BatchReader(made.directory).lookups(labels, **asked).body


def singles(body: LookupsBody) -> list[LookupAnswer]:
    """What the batch says of each of its labels alone; its own claims, not yet verified."""
    answer = BatchAnswer.decode(body.answer)
    indices = [index_of(b.VRF.prove(label.encode())[0]) for label in ASKED[: body.count]]
    _, proofs = expand(
        [one.claim(index) for one, index in zip(answer.answers, indices, strict=True)], answer.map_proof
    )
    return [answer.lookup(at, proof) for at, proof in enumerate(proofs)]


@pytest.mark.parametrize("epoch", [None, 1, 2, 3, 4])
def test_it_says_of_each_label_what_a_single_lookup_says(running: Front, epoch: int | None) -> None:
    found = looked_up(running, ASKED, epoch=epoch, since=2)
    alone = [running.directory.lookup(label, epoch, 2) for label in ASKED]
    assert found.count == len(ASKED)
    assert singles(found) == [one.answer for one in alone]
    assert found.profiles == tuple(one.profile for one in alone)
    assert {(one.epoch, one.consistency) for one in alone} == {(found.epoch, found.consistency)}
    results = BatchReader(running.directory).lookups(ASKED, epoch).results
    erased = int(epoch in (None, 4))
    assert results == {"found": len(LABELS) - erased, "absent": len(LABELS), "erased": erased} or not erased


def test_without_profiles(running: Front) -> None:
    found = looked_up(running, ASKED, profile=False)
    assert found.profiles == (None,) * len(ASKED)
    assert singles(found) == singles(looked_up(running, ASKED))


def test_what_does_not_fit_is_left_for_the_next_request(
    running: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = looked_up(running, ASKED)
    monkeypatch.setattr(batches, "_ROOM", len(whole.answer) // 3)
    rest, seen = ASKED, []
    while rest:
        part = looked_up(running, rest)
        assert len(part.answer) + sum(map(len, filter(None, part.profiles))) < len(whole.answer) // 3 + 8192
        assert part.count == len(part.profiles) == len(BatchAnswer.decode(part.answer).answers)
        seen += [part.count]
        rest = rest[part.count :]
    assert len(seen) > 3
    monkeypatch.setattr(batches, "_ROOM", 1)
    assert looked_up(running, ASKED).count == 1


def test_profiles_take_their_room(running: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    for room in range(20_000, 22_000, 50):
        monkeypatch.setattr(batches, "_ROOM", room)
        with_profiles, without = looked_up(running, ASKED), looked_up(running, ASKED, profile=False)
        counts.append((with_profiles.count, without.count))
    assert all(shown <= count < len(ASKED) for shown, count in counts)
    assert any(shown < count for shown, count in counts)


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (["alice@example.org", "no address"], "number 2 must be an e-mail address"),
        (["alice@example.org", "b@example.org", "Alice@Example.org"], "number 3 is the same as number 1"),
    ],
)
def test_a_wrong_label_is_named_by_its_place(running: Front, labels: list[str], problem: str) -> None:
    answer = running.post("/v1/lookups", {"labels": labels})
    told = answer.json()
    assert (answer.status_code, told["reason"], told["field"]) == (400, "malformed", "labels")
    assert told["detail"].startswith(problem)


@pytest.mark.parametrize("labels", [[], [f"user{n}@example.org" for n in range(MAX_BATCH + 1)], "a@b.c", [1]])
def test_a_request_has_1_to_1000_labels(running: Front, labels: object) -> None:
    answer = running.post("/v1/lookups", {"labels": labels})
    assert (answer.status_code, answer.json()["reason"]) == (400, "malformed")


def test_a_thousand_long_labels_are_answered(running: Front) -> None:
    local = "\u00fc" * 32
    labels = [f"{n:04d}{local[:28]}@{'d' * 60}.{'e' * 60}.{'f' * 60}.org" for n in range(MAX_BATCH)]
    answer = running.post("/v1/lookups", {"labels": labels, "profile": False})
    assert (answer.status_code, answer.json()["count"]) == (200, MAX_BATCH)


def test_other_epochs_are_refused(running: Front) -> None:
    with pytest.raises(RefusedError, match="epochs 1 to 4"):
        looked_up(running, ASKED, epoch=5)
    with pytest.raises(UnavailableError, match="behind"):
        looked_up(running, ASKED, since=9)


def test_each_label_costs_its_client_half_a_lookup() -> None:
    """40 labels cost 20 lookups and 1 for the request; a client at 4 a second has 16 at once."""
    limits = ClientLimits(exempt=(), address_rate=4.0, network_rate=400.0)
    with front_with_alice(limits) as made:
        few = {"labels": ASKED[:10]}
        assert [made.post("/v1/lookups", few).status_code for _ in range(2)] == [200, 200]
        many = {"labels": ASKED[:40]}
        assert made.post("/v1/lookups", many).status_code == 200
        refused = made.post("/v1/lookups", few)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 4
        assert made.get("/healthz").status_code == 200


def test_a_refused_batch_is_paid_for_as_well() -> None:
    limits = ClientLimits(exempt=(), address_rate=4.0, network_rate=400.0)
    with front_with_alice(limits) as made:
        assert made.post("/v1/lookups", {"labels": ["a@example.org"] * 100}).status_code == 400
        assert made.post("/v1/lookups", {"labels": ["a@example.org"]}).status_code == 429


def test_its_labels_are_counted_by_result(running: Front) -> None:
    def count(result: str) -> float:
        return running.running.metrics.lookups.labels(result)._value.get()  # type: ignore[no-any-return]

    before = {result: count(result) for result in ("found", "absent", "erased")}
    assert running.post("/v1/lookups", {"labels": ASKED}).status_code == 200
    after = {result: count(result) - before[result] for result in before}
    assert after == {"found": len(LABELS) - 1, "absent": len(LABELS), "erased": 1}


def test_proofs_of_new_labels_are_those_of_known_ones(running: Front) -> None:
    labels = [f"new{number}@example.org" for number in range(50)]
    made = running.directory.indexer.locate_many(labels)
    assert made == [running.directory.indexer.locate(label) for label in labels]
    assert made == running.directory.indexer.locate_many(labels)
    assert [index for index, _ in made] == [index_of(b.VRF.prove(label.encode())[0]) for label in labels]


def test_over_a_shared_store_openings_come_from_their_streams() -> None:
    streams = SharedStreams()
    streams_of(streams)
    made = Front(streams, store_of(streams.replicas))
    with front(streams, made=made), listening(made.running):
        first = made.post("/v1/lookups", {"labels": ASKED}).json()
        assert first["count"] == len(ASKED)
        assert sum(profile is not None for profile in first["profiles"]) == len(LABELS)
        assert made.post("/v1/lookups", {"labels": ASKED}).json() == first
        streams.replicas.lag("entries", "pages")
        assert made.post("/v1/lookups", {"labels": ASKED, "epoch": 1}).status_code == 200


def test_a_wrong_row_of_a_shared_store_is_not_answered() -> None:
    streams = SharedStreams()
    streams_of(streams)
    forged = b.mutation("alice", keys=[b.private_key("stranger")])
    for key, row in streams.replicas.rows("entries").items():
        if key.startswith(b.index("alice")):
            streams.replicas.majority.write([("entries", key, row[:8] + forged.encode())])
    made = Front(streams, store_of(streams.replicas))
    with front(streams, made=made):
        answer = made.post("/v1/lookups", {"labels": ASKED})
        assert (answer.status_code, answer.json()["reason"]) == (503, "unavailable")
        assert made.post("/v1/lookups", {"labels": ASKED[1:]}).status_code == 200
