"""Batches of submissions: each has the outcome that it has alone, and no other submission changes it."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kt_es.api.batches import MAX_SUBMISSIONS, BatchedMutation
from kt_es.errors import AccessDeniedError, UnavailableError
from kt_es.eventstore.rights import WRITE_METADATA, keeps_private
from kt_es.eventstore.streams import NewEvent
from kt_es.formats.entries import MAX_MUTATION, Opening
from kt_es.formats.notes import encode_base64 as encoded
from kt_es.formats.queue import decode_mutations
from kt_es.server.limits import SUBMISSION_COST, ClientLimits
from kt_es.server.submission_batches import SubmissionBatches
from tests import builders as b
from tests.reference.frontends import Front, batched, front, submission, until
from tests.reference.memory_log import MemoryLog
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


# --- The log ---


def test_nothing_is_queued_while_the_log_is_away(streams: SignedStreams, running: Front) -> None:
    streams.log.away = True  # type: ignore[attr-defined]
    running.running.watch.probe()
    answer = running.post(PATH, {"submissions": [batched("bob"), batched("carol", opening="?")]})
    assert (answer.status_code, answer.json()["reason"]) == (503, "unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    # Without anything to queue, the log is not needed.
    assert kinds(outcomes(running, [batched("carol", opening="?"), batched("alice")])) == [
        "problem",
        "verdict",
    ]


@pytest.mark.parametrize("written", [True, False])
def test_appends_without_an_answer_are_repeated_as_the_same_events(
    streams: SignedStreams, running: Front, written: bool
) -> None:
    streams.log.break_appends(3, written=written)  # type: ignore[attr-defined]
    users = ["bob", "carol", "dora"]
    assert kinds(outcomes(running, [batched(user) for user in users])) == ["receipt"] * 3
    queued = [item for event in events(streams) for item in event]
    assert sorted(queued) == sorted(b.mutation(user).encode() for user in users)
    for user in users:
        assert len(list(streams.log.read(streams.names.openings(b.index(user))))) == 1


class Failing(MemoryLog):
    """Appends to some streams have an unknown outcome, or are denied."""

    def __init__(self) -> None:
        super().__init__()
        self.unknown: set[str] = set()
        self.denied: set[str] = set()
        self.written = True

    def append(self, stream: str, expected: int, events: Sequence[NewEvent]) -> None:
        if stream in self.unknown:
            if self.written:
                super().append(stream, expected, events)
            raise UnavailableError("no answer")
        super().append(stream, expected, events)

    def set_metadata(self, stream: str, values: Mapping[str, object], expected: int) -> None:
        if stream in self.denied:
            raise AccessDeniedError("set the metadata", stream, WRITE_METADATA)
        super().set_metadata(stream, values, expected)


@pytest.fixture
def failing() -> Iterator[tuple[Failing, Front]]:
    log = Failing()
    streams = SignedStreams(log)
    streams.put_user("alice")
    streams.epoch()
    with front(streams) as made:
        yield log, made


@pytest.mark.parametrize("written", [True, False])
def test_outcomes_that_are_unknown_say_so_and_the_batch_is_sent_again(
    failing: tuple[Failing, Front], monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    """The event is in the queue or not, and nobody can tell. Each mutation is accepted once in any case."""
    log, front = failing
    monkeypatch.setattr("kt_es.server.appender.DEADLINE", 0.0)
    log.written = written
    log.unknown.add(front.streams.names.queue)
    wanted = [batched("bob"), batched("carol"), batched("dora", opening="?")]
    found = outcomes(front, wanted)
    for outcome in found[:2]:
        assert (outcome["problem"]["status"], outcome["problem"]["reason"]) == (503, "unavailable")
        assert outcome["retry_after"] >= 1
    assert found[2]["problem"]["status"] == 400
    assert "retry_after" not in found[2]
    log.unknown.clear()
    front.running.watch.probe()
    assert kinds(outcomes(front, wanted)) == ["receipt", "receipt", "problem"]
    front.streams.epoch()
    until(front.caught_up)
    for outcome in outcomes(front, wanted)[:2]:
        assert outcome["verdict"]["epoch"] == 2
    for user in ("bob", "carol"):
        assert [version.version for version in front.directory.history(b.label_of(user)).versions] == [1]


def test_an_opening_that_cannot_be_stored_keeps_back_its_mutation_alone(
    failing: tuple[Failing, Front], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, front = failing
    monkeypatch.setattr("kt_es.server.appender.DEADLINE", 0.0)
    names = front.streams.names
    # The log in memory does not try what comes after an append without an answer, so this one is the last.
    log.unknown.add(names.openings(b.index("carol")))
    found = outcomes(front, [batched("bob"), batched("carol")])
    assert kinds(found) == ["receipt", "problem"]
    assert found[1]["problem"]["status"] == 503
    assert events(front.streams) == [[b.mutation("bob").encode()]]


def test_a_stream_that_may_not_be_made_private_keeps_back_its_mutation_alone(
    failing: tuple[Failing, Front],
) -> None:
    log, front = failing
    stream = front.streams.names.openings(b.index("carol"))
    log.denied.add(stream)
    found = outcomes(front, [batched("bob"), batched("carol"), batched("dora")])
    assert kinds(found) == ["receipt", "problem", "receipt"]
    assert (found[1]["problem"]["status"], found[1]["problem"]["reason"]) == (503, "unavailable")
    assert stream not in found[1]["problem"]["detail"]
    assert not list(log.read(stream))
    assert front.running.watch.denials.problem is not None


def test_a_stream_that_is_there_already_is_made_private_first(streams: SignedStreams, running: Front) -> None:
    stream = streams.names.openings(b.index("bob"))
    streams.log.set_metadata(stream, {"$maxAge": 7}, -1)
    assert kinds(outcomes(running, [batched("bob"), batched("carol")])) == ["receipt", "receipt"]
    values = streams.log.metadata(stream).values
    assert keeps_private(values)
    assert values["$maxAge"] == 7
    assert len(list(streams.log.read(stream))) == 1


def test_later_versions_need_a_private_stream(streams: SignedStreams, running: Front) -> None:
    """Their stream has its ACL, unless it was deleted meanwhile."""
    made = b.next_mutation("alice", b.mutation("alice"))
    found = outcomes(running, [batched("alice", made), batched("bob")])
    assert kinds(found) == ["receipt", "receipt"]
    assert found[0]["receipt"]["registration"] is None
    stream = streams.names.openings(b.index("alice"))
    assert keeps_private(streams.log.metadata(stream).values)
    assert len(list(streams.log.read(stream))) == 2


def test_a_log_that_fails_while_rights_are_read_is_asked_once(
    failing: tuple[Failing, Front], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, front = failing
    monkeypatch.setattr("kt_es.server.appender.DEADLINE", 0.0)
    asked: list[str] = []

    def away(stream: str) -> object:
        asked.append(stream)
        raise UnavailableError("no answer")

    for number in range(8):
        streams_user = f"known{number}"
        front.streams.put_user(streams_user)
    front.streams.epoch()
    until(front.caught_up)
    monkeypatch.setattr(log, "metadata", away)
    later = [
        batched(f"known{number}", b.next_mutation(f"known{number}", b.mutation(f"known{number}")))
        for number in range(8)
    ]
    found = outcomes(front, [*later, batched("bob")])
    assert kinds(found) == ["problem"] * 8 + ["receipt"]
    assert {outcome["problem"]["status"] for outcome in found[:8]} == {503}
    # Once in each thread of the batch.
    assert len(asked) == 4


# --- What a client may take ---


def test_a_batch_costs_what_its_submissions_cost() -> None:
    limits = ClientLimits(exempt=(), address_rate=30.0, network_rate=3000.0)
    streams = SignedStreams()
    streams.put_user("alice")
    streams.epoch()
    with front(streams, made=Front(streams, limits=limits)) as made:
        clients = made.running.clients
        now = [0.0]
        clients._clock = lambda: now[0]
        batch = [batched(f"user{number}") for number in range(40)]
        assert kinds(outcomes(made, batch)) == ["receipt"] * 40
        # A bucket of 4 seconds may be overdrawn once, and the next request waits for what is owed.
        owed = 40 * SUBMISSION_COST - 4 * 30
        refused = made.post(PATH, {"submissions": [batched("late")]})
        assert (refused.status_code, refused.json()["reason"]) == (429, "too-many-requests")
        assert owed / 30 <= int(refused.headers["retry-after"]) <= owed / 30 + 2
        assert not list(streams.log.read(streams.names.openings(b.index("late"))))
        now[0] += owed / 30 + 1
        assert kinds(outcomes(made, [batched("late")])) == ["receipt"]


def test_outcomes_are_counted_by_verdict(streams: SignedStreams, running: Front) -> None:
    outcomes(
        running, [batched("bob"), batched("carol"), batched("dora", opening="?"), batched("alice"), None]
    )
    text = running.get("/metrics").text
    counted = re.findall(r'kt_submissions_total{verdict="(.*)"} (.*)', text)
    assert {verdict: float(count) for verdict, count in counted} == {
        "queued": 2,
        "malformed": 2,
        "accepted": 1,
    }
    assert "example.org" not in text


def test_a_client_that_hangs_up_stops_waiting_and_the_mutations_stay(
    streams: SignedStreams, running: Front
) -> None:
    batch = [
        BatchedMutation(b.label_of(user), b.mutation(user).encode(), b.opening(user), b.profile(user))
        for user in ("bob", "carol")
    ]
    waits = threading.Event()

    async def hang_up() -> None:
        with ThreadPoolExecutor(2) as pool:
            taking = SubmissionBatches(running.running.frontend.submissions).take(batch, 60, pool, waits.set)
            task = asyncio.ensure_future(taking)
            while not waits.is_set():
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(hang_up())
    assert running.running.replica.waiters._waiting == {}
    assert events(streams) == [[b.mutation("bob").encode(), b.mutation("carol").encode()]]


def test_what_another_front_end_queued_first_has_the_verdict_of_its_first_record(
    streams: SignedStreams, running: Front
) -> None:
    streams.put(b.mutation("bob"), b.mutation("eve"))
    with streams.signing():
        bob, carol = outcomes(running, [batched("bob"), batched("carol")], wait=30)
    assert (bob["verdict"]["verdict"], carol["verdict"]["verdict"]) == ("accepted", "accepted")
    assert bob["verdict"]["record"]["queue_revision"] == 3
    assert carol["verdict"]["record"]["queue_revision"] == 4
