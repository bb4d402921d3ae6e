"""Batches of submissions over a log that fails, and what a client may take."""

from __future__ import annotations

import asyncio
import http.client
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from kt_es.api.batches import BatchedMutation
from kt_es.api.operations import MUTATIONS_BATCH
from kt_es.errors import AccessDeniedError, UnavailableError
from kt_es.eventstore.rights import WRITE_METADATA, keeps_private
from kt_es.eventstore.streams import NewEvent
from kt_es.server.limits import SUBMISSION_COST, ClientLimits
from kt_es.server.submission_batches import SubmissionBatches
from tests import builders as b
from tests.reference.doors import listening
from tests.reference.frontends import Front, batched, front, until
from tests.reference.memory_log import MemoryLog
from tests.reference.signed_streams import SignedStreams
from tests.server.test_submission_batches import PATH, events, kinds, outcomes


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


def test_a_body_over_the_limit_is_refused_before_it_is_read(running: Front) -> None:
    with listening(running.running) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.putrequest("POST", PATH)
        connection.putheader("content-type", "application/json")
        connection.putheader("content-length", str(MUTATIONS_BATCH.max_body + 1))
        connection.endheaders()
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("connection")) == (413, "close")
        connection.close()
