"""Submissions: refused early by the signer's own rules, with status, reason and field; else queued."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from kt_es.crypto.signatures import ED25519
from kt_es.formats.entries import MAX_MUTATION, MAX_PROFILE, Mutation, Opening, PublicKey
from kt_es.formats.notes import encode_base64 as encoded
from kt_es.formats.queue import decode_mutations
from tests import builders as b
from tests.reference.frontends import Front, front, submission, until
from tests.reference.signed_streams import SignedStreams


def queued(streams: SignedStreams) -> list[bytes]:
    events = [event for event in streams.log.read(streams.names.queue) if event.type == "Mutations"]
    return [item for event in events[1:] for item in decode_mutations(event.data)]


def test_a_record_that_was_replayed_before_the_wait_began_is_found(
    streams: SignedStreams, running: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its epoch was committed during the wait, and nobody was told."""
    monkeypatch.setattr(running.running.replica.waiters, "note", lambda _: None)
    with streams.signing():
        answer = running.post("/v1/mutations", submission("bob", wait=1.0))
    assert (answer.status_code, answer.json()["verdict"], answer.json()["epoch"]) == (200, "accepted", 2)


def test_a_receipt_names_the_mutation_and_its_event(streams: SignedStreams, running: Front) -> None:
    made = b.mutation("bob")
    answer = running.post("/v1/mutations", submission("bob", made, label="BOB@example.org"))
    assert answer.status_code == 202
    (event,) = [event for event in streams.log.read(streams.names.queue) if event.revision == 3]
    assert answer.json() == {
        "mutation": made.entry_hash.hex(),
        "event": str(event.id),
        "registration": "open",
    }
    assert queued(streams) == [made.encode()]
    (opening,) = streams.log.read(streams.names.openings(made.entry.index))
    assert Opening.decode(opening.data) == Opening(made.entry_hash, b.opening("bob"), b.profile("bob"))
    assert opening.position is not None
    assert opening.position < (event.position or 0)


def test_whoever_waits_gets_the_verdict_and_the_record(streams: SignedStreams, running: Front) -> None:
    made = b.mutation("bob")
    with streams.signing():
        answer = running.post("/v1/mutations", submission("bob", made, wait=30))
    assert answer.status_code == 200
    assert answer.json() == {
        "mutation": made.entry_hash.hex(),
        "verdict": "accepted",
        "epoch": 2,
        "record": {"sequence": 3, "queue_revision": 3, "position": 0},
        "registration": "open",
    }
    found = running.directory.lookup(b.label_of("bob"))
    assert (found.answer.mutation, found.profile) == (made, b.profile("bob"))


def test_a_lost_answer_is_repaired_by_submitting_again(streams: SignedStreams, running: Front) -> None:
    made = b.mutation("bob")
    body = submission("bob", made, wait=30)
    with streams.signing():
        running.post("/v1/mutations", body)
    again = running.post("/v1/mutations", body)
    assert (again.status_code, again.json()["verdict"], again.json()["epoch"]) == (200, "accepted", 2)
    assert again.json()["record"] is None
    assert queued(streams) == [made.encode()]


def test_a_decision_against_it_is_a_problem_with_the_verdict(streams: SignedStreams, running: Front) -> None:
    first, second = b.mutation("bob"), b.mutation("bob", keys=[b.private_key("other")])
    streams.put(first)
    with streams.signing():
        answer = running.post("/v1/mutations", submission("bob", second, wait=30))
    assert answer.status_code == 409
    problem = answer.json()
    assert (problem["verdict"], problem["reason"], problem["field"]) == ("conflict", "conflict", "mutation")
    assert (problem["epoch"], problem["record"]["position"]) == (2, 0)


def test_not_decided_in_time_is_a_receipt(running: Front) -> None:
    answer = running.post("/v1/mutations", submission("bob", b.mutation("bob"), wait=0.01))
    assert answer.status_code == 202


def refused_cases() -> Iterator[tuple[str, Callable[[], dict[str, Any]], int, str, str]]:
    alice, bob = b.mutation("alice"), b.mutation("bob")
    good = submission("bob", bob)
    other = b.private_key("other")

    def case(
        name: str, status: int, reason: str, field: str, **changed: object
    ) -> tuple[str, Callable[[], dict[str, Any]], int, str, str]:
        return name, lambda: {**good, **changed}, status, reason, field

    def mutation(made: Mutation) -> str:
        return encoded(made.encode())

    yield case("label is no address", 400, "malformed", "label", label="bob")
    yield case("label has a lone surrogate", 400, "malformed", "label", label="\ud800@example.org")
    yield case("another label", 400, "malformed", "mutation", label="carol@example.org")
    yield case("mutation is no base64", 400, "malformed", "mutation", mutation="?")
    yield case("base64 without padding", 400, "malformed", "opening", opening=good["opening"].rstrip("="))
    yield case("base64 with stray bits", 400, "malformed", "opening", opening=good["opening"][:-3] + "h==")
    yield case("mutation is no CBOR", 400, "malformed", "mutation", mutation=encoded(b"\xff"))
    yield case("mutation has a tail", 400, "malformed", "mutation", mutation=encoded(bob.encode() + b"\0"))
    yield case("mutation too large", 413, "oversize", "mutation", mutation=encoded(bytes(MAX_MUTATION + 1)))
    yield case("opening too short", 400, "malformed", "opening", opening=encoded(bytes(15)))
    yield case("another opening", 400, "malformed", "opening", opening=encoded(bytes(16)))
    yield case("another profile", 400, "malformed", "opening", profile=encoded(b.profile("bob", 2)))
    yield case("profile is no CBOR", 400, "malformed", "profile", profile=encoded(b"\xff"))
    yield case("profile too large", 413, "oversize", "profile", profile=encoded(bytes(MAX_PROFILE + 1)))
    yield case("wait too long", 400, "malformed", "wait", wait=61)
    yield case("wait is text", 400, "malformed", "wait", wait="1")
    yield case("an unknown field", 400, "malformed", "extra", extra=1)
    yield case(
        "signed by nobody of it", 403, "unauthorized", "mutation",
        mutation=mutation(b.mutation("bob", signed_by=[other])),
    )  # fmt: skip
    yield case(
        "signed for another origin", 403, "unauthorized", "mutation",
        mutation=mutation(b.mutation("bob", origin=b.OTHER_ORIGIN)),
    )  # fmt: skip
    second = b.mutation("bob", 2, bob.entry_hash)
    yield "no first version yet", lambda: submission("bob", second), 409, "stale", "mutation"
    stale = b.mutation("alice", keys=[other])
    yield "a first version again", lambda: submission("alice", stale), 409, "stale", "mutation"
    taken = b.next_mutation("alice", alice, keys=[other])
    yield "not signed by the owner", lambda: submission("alice", taken), 403, "unauthorized", "mutation"


CASES = list(refused_cases())


@pytest.mark.parametrize(
    ("body", "status", "reason", "field"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_one_fault_is_refused_by_status_reason_and_field(
    shared: Front, body: Callable[[], dict[str, Any]], status: int, reason: str, field: str
) -> None:
    before = shared.streams.log.appends  # type: ignore[attr-defined]
    answer = shared.post("/v1/mutations", body())
    problem = answer.json()
    assert (answer.status_code, problem["reason"], problem["field"]) == (status, reason, field)
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == status
    assert "example.org" not in problem["detail"].replace("alice@example.org", "")
    assert shared.streams.log.appends == before  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def shared() -> Iterator[Front]:
    streams = SignedStreams()
    streams.put_user("alice")
    streams.epoch()
    with front(streams) as made:
        yield made


def test_without_the_log_submissions_are_refused_and_lookups_go_on(
    streams: SignedStreams, running: Front
) -> None:
    held = b.mutation("alice")
    # A lookup finds it before, in the log.
    until(lambda: isinstance(running.running.openings.get(held.entry.index, held.entry_hash), Opening))
    streams.log.away = True  # type: ignore[attr-defined]
    running.running.watch.probe()
    body = submission("bob", b.mutation("bob"))
    answer = running.post("/v1/mutations", body)
    assert (answer.status_code, answer.json()["reason"]) == (503, "unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert running.post("/v1/lookup", {"label": b.label_of("alice")}).status_code == 200
    ready = running.get("/readyz")
    assert (ready.status_code, ready.json()["reason"]) == (503, "not-ready")
    assert running.get("/healthz").status_code == 200
    streams.log.away = False  # type: ignore[attr-defined]
    running.running.watch.probe()
    assert running.post("/v1/mutations", body).status_code == 202
    assert running.get("/readyz").status_code == 200


@pytest.mark.parametrize("written", [True, False])
def test_an_append_without_an_answer_is_repeated_as_the_same_event(
    streams: SignedStreams, running: Front, written: bool
) -> None:
    streams.log.break_appends(2, written=written)  # type: ignore[attr-defined]
    made = b.mutation("bob")
    assert running.post("/v1/mutations", submission("bob", made)).status_code == 202
    assert queued(streams) == [made.encode()]
    assert len(list(streams.log.read(streams.names.openings(made.entry.index)))) == 1


def test_submissions_are_counted_by_verdict(streams: SignedStreams, running: Front) -> None:
    running.post("/v1/mutations", submission("bob", b.mutation("bob")))
    running.post("/v1/mutations", submission("bob", b.mutation("bob"), opening=""))
    assert "kt_epoch 1.0" in running.get("/metrics").text
    other = b.private_key("other")
    streams.put(b.mutation("dora"))
    with streams.signing():
        # The signer decides about dora and carol, and the front end about alice.
        for user, keys, status in (("dora", [other], 409), ("carol", None, 200), ("alice", [other], 409)):
            made = b.mutation(user, keys=keys)
            assert running.post("/v1/mutations", submission(user, made, wait=30)).status_code == status
    text = running.get("/metrics").text
    counted = re.findall(r'kt_submissions_total{verdict="(.*)"} (.*)', text)
    assert {verdict: float(count) for verdict, count in counted} == {
        "queued": 1,
        "malformed": 1,
        "conflict": 1,
        "accepted": 1,
        "stale": 1,
    }
    assert "example.org" not in text


def test_a_key_that_nobody_can_have_is_refused(streams: SignedStreams, running: Front) -> None:
    """The log would accept the entry: there a key is judged by its length."""
    small = PublicKey(ED25519, b"\x01" + bytes(31))
    entry = b.entry("bob")
    named = replace(entry, authorized_keys=(*entry.authorized_keys, small))
    made = Mutation.sign(named, b.ORIGIN, [b.private_key("bob")])
    answer = running.post("/v1/mutations", submission("bob", made))
    assert answer.status_code == 400
    problem = answer.json()
    assert (problem["reason"], problem["field"]) == ("malformed", "mutation")
    assert f"entry authorized key: {small.id.hex()} is no valid public key" in problem["detail"]
    assert queued(streams) == []
