"""Batches of submissions: each has the outcome that it has alone, and no other submission changes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kt_es.api.batches import MAX_SUBMISSIONS
from kt_es.eventstore.rights import keeps_private
from kt_es.formats.entries import MAX_MUTATION, Opening
from kt_es.formats.notes import encode_base64 as encoded
from kt_es.formats.queue import decode_mutations
from tests import builders as b
from tests.reference.frontends import Front, batched, front, submission, until
from tests.reference.signed_streams import SignedStreams
from tests.server.test_submission import CASES

PATH = "/v1/mutations/batch"
Json = dict[str, Any]


def outcomes(front: Front, submissions: Sequence[object], **members: object) -> list[Json]:
    answer = front.post(PATH, {"submissions": list(submissions), **members})
    assert answer.status_code == 200, answer.text
    found: list[Json] = answer.json()["outcomes"]
    assert len(found) == len(submissions)
    return found


def kinds(found: Sequence[Json]) -> list[str]:
    """What each outcome is: exactly one of the three."""
    said = [[name for name in ("receipt", "verdict", "problem") if name in outcome] for outcome in found]
    assert all(len(names) == 1 for names in said)
    return [name for (name,) in said]


def events(streams: SignedStreams) -> list[list[bytes]]:
    """The mutations in each event of the queue, those that made ``alice`` left out."""
    found = [event for event in streams.log.read(streams.names.queue) if event.type == "Mutations"]
    return [decode_mutations(event.data) for event in found[1:]]


def test_a_batch_becomes_one_event_after_its_openings(streams: SignedStreams, running: Front) -> None:
    users = [f"user{number}" for number in range(MAX_SUBMISSIONS)]
    found = outcomes(running, [batched(user) for user in users])
    assert set(kinds(found)) == {"receipt"}
    made = [b.mutation(user) for user in users]
    assert [outcome["receipt"]["mutation"] for outcome in found] == [one.entry_hash.hex() for one in made]
    assert {outcome["receipt"]["registration"] for outcome in found} == {"open"}
    assert events(streams) == [[one.encode() for one in made]]
    last = streams.log.last_event(streams.names.queue)
    assert last is not None
    assert {outcome["receipt"]["event"] for outcome in found} == {str(last.id)}
    for user, mutation in zip(users, made, strict=True):
        stream = streams.names.openings(mutation.entry.index)
        (opening,) = streams.log.read(stream)
        assert Opening.decode(opening.data) == Opening(mutation.entry_hash, b.opening(user), b.profile(user))
        assert keeps_private(streams.log.metadata(stream).values)
        assert (opening.position or 0) < (last.position or 0)


def test_one_wait_is_for_all_verdicts(streams: SignedStreams, running: Front) -> None:
    wanted = [
        batched("bob"),
        batched("carol"),
        batched("bob", b.mutation("bob", keys=[b.private_key("other")])),
    ]
    streams.put(b.mutation("carol", keys=[b.private_key("other")]))
    with streams.signing():
        bob, carol, other = outcomes(running, wanted, wait=30)
    assert bob["verdict"] == {
        "mutation": b.mutation("bob").entry_hash.hex(),
        "verdict": "accepted",
        "epoch": 2,
        "record": {"sequence": 4, "queue_revision": 4, "position": 0},
        "registration": "open",
    }
    # The signer decides which of several counts, not a front end. Bob's second one may be an epoch later.
    assert (carol["problem"]["verdict"], carol["problem"]["epoch"]) == ("conflict", 2)
    assert other["problem"]["verdict"] in ("conflict", "stale")
    for refused in (carol["problem"], other["problem"]):
        assert (refused["status"], refused["reason"], refused["field"]) == (
            409,
            refused["verdict"],
            "mutation",
        )
        assert refused["record"]["queue_revision"] >= 4
    found = running.directory.lookup(b.label_of("bob"))
    assert found.answer.mutation == b.mutation("bob")


def test_not_decided_in_time_are_receipts(running: Front) -> None:
    assert kinds(outcomes(running, [batched("bob"), batched("carol")], wait=0.01)) == ["receipt", "receipt"]
    assert running.running.replica.waiters._waiting == {}


def test_a_record_that_was_replayed_before_the_wait_began_is_found(
    streams: SignedStreams, running: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running.running.replica.waiters, "note", lambda _: None)
    with streams.signing():
        found = outcomes(running, [batched("bob"), batched("carol", opening="?")], wait=1.0)
    assert kinds(found) == ["verdict", "problem"]
    assert (found[0]["verdict"]["verdict"], found[0]["verdict"]["epoch"]) == ("accepted", 2)


def test_the_same_batch_again_is_accepted_once(streams: SignedStreams, running: Front) -> None:
    wanted = [batched(user) for user in ("bob", "carol", "dora")]
    receipts = outcomes(running, wanted)
    # The queue has the very event, so nothing is appended.
    assert outcomes(running, wanted) == receipts
    assert len(events(streams)) == 1
    streams.epoch()
    until(running.caught_up)
    for outcome in outcomes(running, wanted):
        assert (outcome["verdict"]["verdict"], outcome["verdict"]["epoch"]) == ("accepted", 2)
        assert outcome["verdict"]["record"] is None
    assert len(events(streams)) == 1


def test_the_same_mutation_many_times_is_one_item(streams: SignedStreams, running: Front) -> None:
    found = outcomes(running, [batched("bob")] * MAX_SUBMISSIONS)
    assert found == [found[0]] * MAX_SUBMISSIONS
    assert events(streams) == [[b.mutation("bob").encode()]]


# --- Each outcome is that of the submission alone ---


GOOD: list[tuple[str, Callable[[], Json]]] = [
    (f"new {user}", lambda user=user: submission(user))  # type: ignore[misc]
    for user in ("erin", "frank", "grace")
]
GOOD.append(("accepted already", lambda: submission("alice")))
GOOD.append(("the next version", lambda: submission("alice", b.next_mutation("alice", b.mutation("alice")))))
# ``wait`` is a member of the batch, not of a submission.
BAD = [(case[0], case[1]) for case in CASES if not case[0].startswith("wait")]


@pytest.fixture(scope="module")
def shared() -> Iterator[Front]:
    streams = SignedStreams()
    streams.put_user("alice")
    streams.epoch()
    with front(streams) as made:
        yield made


def alone(front: Front, body: Json) -> Json:
    """The outcome of a submission as a batch would say it."""
    answer = front.post("/v1/mutations", body)
    match answer.status_code:
        case 202:
            return {"receipt": answer.json()}
        case 200:
            return {"verdict": answer.json()}
    wait = answer.headers.get("retry-after")
    return {"problem": answer.json()} | ({} if wait is None else {"retry_after": int(wait)})


def without_event(outcome: Json) -> Json:
    """The event depends on what else is in it."""
    if "receipt" not in outcome:
        return outcome
    return {"receipt": {name: value for name, value in outcome["receipt"].items() if name != "event"}}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from([*GOOD, *BAD]), min_size=1, max_size=12))
def test_every_outcome_is_that_of_the_submission_alone(
    shared: Front, chosen: list[tuple[str, Callable[[], Json]]]
) -> None:
    bodies = [make() for _, make in chosen]
    batch = [{name: value for name, value in body.items() if name != "wait"} for body in bodies]
    found = outcomes(shared, batch)
    assert [without_event(outcome) for outcome in found] == [
        without_event(alone(shared, body)) for body in bodies
    ]


@pytest.mark.parametrize("wrong", [None, 1, "x", [], {}, {"label": 1}, {**batched("bob"), "wait": 1}])
def test_what_is_no_submission_does_not_affect_the_others(
    streams: SignedStreams, running: Front, wrong: object
) -> None:
    first, bad, last = outcomes(running, [batched("bob"), wrong, batched("carol")])
    assert kinds([first, bad, last]) == ["receipt", "problem", "receipt"]
    assert (bad["problem"]["status"], bad["problem"]["reason"]) == (400, "malformed")
    assert events(streams) == [[b.mutation("bob").encode(), b.mutation("carol").encode()]]


@pytest.mark.parametrize(
    ("members", "status", "field"),
    [
        ({"submissions": []}, 400, "submissions"),
        ({"submissions": [batched("bob")] * (MAX_SUBMISSIONS + 1)}, 400, "submissions"),
        ({"submissions": [batched("bob")] * 1500}, 400, None),
        ({"submissions": {"0": batched("bob")}}, 400, "submissions"),
        ({"submissions": [batched("bob")], "wait": 61}, 400, "wait"),
        ({"submissions": [batched("bob")], "wait": "1"}, 400, "wait"),
        ({"submissions": [batched("bob")], "extra": 1}, 400, "extra"),
        ({"submissions": [[[[[[[[[[]]]]]]]]]] * 40}, 400, None),
        ({}, 400, "submissions"),
    ],
    ids=["none", "257", "more members", "no array", "long wait", "text", "unknown", "deep", "missing"],
)
def test_a_request_that_is_no_batch_is_refused_whole(
    shared: Front, members: Mapping[str, object], status: int, field: str | None
) -> None:
    before = shared.streams.log.appends  # type: ignore[attr-defined]
    answer = shared.post(PATH, members)
    assert (answer.status_code, answer.json()["reason"], answer.json().get("field")) == (
        status,
        "malformed",
        field,
    )
    assert shared.streams.log.appends == before  # type: ignore[attr-defined]


def test_invalid_signatures_are_refused_each(streams: SignedStreams, running: Front) -> None:
    other = b.private_key("other")
    wrong = [batched(f"u{number}", b.mutation(f"u{number}", signed_by=[other])) for number in range(255)]
    found = outcomes(running, [*wrong, batched("bob")])
    assert kinds(found) == ["problem"] * 255 + ["receipt"]
    assert {(outcome["problem"]["status"], outcome["problem"]["reason"]) for outcome in found[:-1]} == {
        (403, "unauthorized")
    }
    assert events(streams) == [[b.mutation("bob").encode()]]
    assert streams.log.metadata(streams.names.openings(b.index("u0"))).values == {}


def test_an_item_over_the_limit_is_refused_alone(running: Front) -> None:
    large = batched("bob", mutation=encoded(bytes(MAX_MUTATION + 1)))
    found = outcomes(running, [large, batched("carol")])
    assert (found[0]["problem"]["status"], found[0]["problem"]["reason"]) == (413, "oversize")
    assert kinds(found) == ["problem", "receipt"]
