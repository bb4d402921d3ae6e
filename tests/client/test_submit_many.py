"""Many submissions in few requests: an outcome for each, older servers, and what is unknown is sent again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from kt_es.api.batches import MAX_SUBMISSIONS
from kt_es.api.operations import MAX_MUTATION_REQUEST, MUTATIONS, MUTATIONS_BATCH
from kt_es.client.asynchronous import AsyncClient
from kt_es.client.bulk import BulkProgress, publish_all
from kt_es.client.changes import Submission
from kt_es.client.client import Client
from kt_es.client.planning import BulkAction, Merging, Wanted, plan_all
from kt_es.client.publishing import Receipt
from kt_es.client.state import MemoryStateStore
from kt_es.client.submitting import Submitted
from kt_es.errors import MalformedError, RefusedError, UnavailableError
from kt_es.formats.entries import MAX_PROFILE, ProfileKey, encode_profile
from tests import builders as b
from tests.reference.clients import client_of
from tests.reference.clocks import Pauses
from tests.reference.directory import Directory, problem

MERGING = Merging(
    lambda present, wanted: tuple(dict.fromkeys([*present, *wanted])),
    lambda present, wanted: [key for key in present if key not in wanted],
)


@pytest.fixture
def directory() -> Directory:
    directory = Directory()
    directory.put_user("alice")
    directory.advance()
    return directory


class Recorded:
    """A directory that keeps the requests about mutations; ``change`` may answer in its place."""

    def __init__(
        self, directory: Directory, change: Callable[[httpx.Request], httpx.Response | None] | None = None
    ) -> None:
        self.directory = directory
        self.change = change or (lambda _: None)
        self.asked: list[tuple[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.startswith(MUTATIONS.path):
            assert len(request.content) <= MAX_MUTATION_REQUEST
            self.asked.append((path, json.loads(request.content)))
        return self.change(request) or self.directory.handle(request)

    @property
    def sizes(self) -> list[int]:
        return [len(body["submissions"]) for path, body in self.asked if path == MUTATIONS_BATCH.path]


def made(user: str, **options: Any) -> Submission:
    return Submission(b.label_of(user), b.mutation(user, **options), b.opening(user), b.profile(user))


def shown(outcomes: list[Submitted]) -> list[str | None]:
    return [
        one.verdict if isinstance(one, Receipt) else getattr(one, "reason", "unknown") for one in outcomes
    ]


def without_batches(request: httpx.Request) -> httpx.Response | None:
    """A server of a former version."""
    if request.url.path in (MUTATIONS_BATCH.path, "/v1/lookups"):
        return problem(404, "not-found", "there is no such resource")
    return None


def test_each_submission_has_its_outcome_in_order(directory: Directory) -> None:
    server = Recorded(directory)
    client = client_of(directory, handler=server)
    stale = made("alice", keys=[b.private_key("other")])
    outcomes = client.submit_many([made("bob"), stale, made("carol")], wait=5)
    assert shown(outcomes) == ["accepted", "stale", "accepted"]
    ((path, body),) = server.asked
    assert (path, len(body["submissions"]), body["wait"]) == (MUTATIONS_BATCH.path, 3, 5)
    assert client.lookup(b.label_of("carol")).mutation == b.mutation("carol")


def test_nothing_is_sent_for_nothing(directory: Directory) -> None:
    server = Recorded(directory)
    assert client_of(directory, handler=server).submit_many([]) == []
    assert server.asked == []


def test_a_request_has_256_submissions_at_most(directory: Directory) -> None:
    def answer(request: httpx.Request) -> httpx.Response | None:
        count = len(json.loads(request.content)["submissions"])
        return httpx.Response(200, json={"outcomes": [{"receipt": receipt} for _ in range(count)]})

    one = made("bob")
    receipt = {"mutation": one.mutation.entry_hash.hex(), "event": "e"}
    server = Recorded(directory, answer)
    outcomes = client_of(directory, handler=server).submit_many([one] * (2 * MAX_SUBMISSIONS + 3))
    assert shown(outcomes) == [None] * (2 * MAX_SUBMISSIONS + 3)
    assert server.sizes == [MAX_SUBMISSIONS, MAX_SUBMISSIONS, 3]


def test_a_request_stays_within_the_bytes_that_a_server_takes(directory: Directory) -> None:
    def answer(request: httpx.Request) -> httpx.Response | None:
        count = len(json.loads(request.content)["submissions"])
        return httpx.Response(200, json={"outcomes": [{"receipt": receipt} for _ in range(count)]})

    large = encode_profile([ProfileKey("k", "raw", bytes(MAX_PROFILE - 100))])
    small = encode_profile([ProfileKey("k", "raw", bytes(100_000))])
    receipt = {"mutation": b.mutation("bob").entry_hash.hex(), "event": "e"}
    server = Recorded(directory, answer)
    wanted = [replace(made("bob"), profile=profile) for profile in (large, small, small, large, large, small)]
    assert len(client_of(directory, handler=server).submit_many(wanted)) == 6
    assert sum(server.sizes) == 6
    assert max(server.sizes) > 1


def test_an_older_server_gets_them_one_by_one(directory: Directory) -> None:
    server = Recorded(directory, without_batches)
    client = client_of(directory, handler=server)
    stale = made("alice", keys=[b.private_key("other")])
    assert shown(client.submit_many([made("bob"), stale, made("carol")])) == ["accepted", "stale", "accepted"]
    assert [path for path, _ in server.asked] == [MUTATIONS_BATCH.path] + [MUTATIONS.path] * 3


def test_what_is_unknown_is_sent_again_and_nothing_else(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = Pauses.installed(monkeypatch)
    busy = {
        "type": "urn:kt-es:problem:unavailable", "title": "Service Unavailable", "status": 503,
        "detail": "the event log cannot be reached; try again later", "reason": "unavailable",
    }  # fmt: skip

    def lose(request: httpx.Request) -> httpx.Response | None:
        if request.url.path != MUTATIONS_BATCH.path or len(server.asked) > 1:
            return None
        answer = directory.handle(request).json()
        # Written, and the outcome is lost.
        answer["outcomes"][1] = {"problem": busy, "retry_after": 3}
        return httpx.Response(200, json=answer)

    server = Recorded(directory, lose)
    client = client_of(directory, handler=server)
    assert shown(client.submit_many([made("bob"), made("carol"), made("dora")])) == ["accepted"] * 3
    assert server.sizes == [3, 1]
    first, second = (body["submissions"] for _, body in server.asked)
    assert second == [first[1]]
    assert pauses.now == 1003.0


def test_what_stays_unknown_is_said(directory: Directory) -> None:
    def away(request: httpx.Request) -> httpx.Response | None:
        if request.url.path != MUTATIONS_BATCH.path:
            return None
        answer = {"problem": problem(503, "unavailable", "the log is away").json(), "retry_after": 60}
        good = {"receipt": {"mutation": b.mutation("carol").entry_hash.hex(), "event": "e"}}
        return httpx.Response(200, json={"outcomes": [answer, good]})

    outcomes = client_of(directory, handler=Recorded(directory, away)).submit_many(
        [made("bob"), made("carol")]
    )
    assert isinstance(outcomes[0], UnavailableError)
    assert "the log is away" in str(outcomes[0])
    assert isinstance(outcomes[1], Receipt)


def test_an_outcome_that_failed_there_is_not_sent_again(directory: Directory) -> None:
    def broken(request: httpx.Request) -> httpx.Response | None:
        if request.url.path != MUTATIONS_BATCH.path:
            return None
        failed = problem(500, "internal", "the front end failed").json()
        return httpx.Response(200, json={"outcomes": [{"problem": failed}]})

    server = Recorded(directory, broken)
    (outcome,) = client_of(directory, handler=server).submit_many([made("bob")])
    assert isinstance(outcome, UnavailableError)
    assert server.sizes == [1]


@pytest.mark.parametrize(
    "outcomes",
    [
        None, {}, [], [None], [{}], [{"receipt": None}], [{"receipt": {}}], [{"receipt": {"mutation": 1}}],
        [{"receipt": {"mutation": "00"}}], [{"verdict": []}], [{"problem": {}}],
        [{"problem": {"status": 200}}], [{"problem": {"status": True}}],
        [{"problem": {"status": "503"}}], [{}, {}],
    ],
    ids=json.dumps,
)  # fmt: skip
def test_a_malformed_answer_is_refused(directory: Directory, outcomes: object) -> None:
    def lie(request: httpx.Request) -> httpx.Response | None:
        return httpx.Response(200, json={"outcomes": outcomes})

    with pytest.raises(MalformedError):
        client_of(directory, handler=Recorded(directory, lie)).submit_many([made("bob")])


def test_texts_of_a_server_cannot_control_the_terminal(directory: Directory) -> None:
    def lie(request: httpx.Request) -> httpx.Response | None:
        body = {"status": 409, "reason": "stale\x1b", "detail": "x\x1b[2J", "field": None}
        return httpx.Response(200, json={"outcomes": [{"problem": body}]})

    (outcome,) = client_of(directory, handler=Recorded(directory, lie)).submit_many([made("bob")])
    assert isinstance(outcome, RefusedError)
    assert str(outcome) == "stale?: x?[2J"


def test_a_registration_proof_goes_with_first_versions_alone(directory: Directory) -> None:
    server = Recorded(directory)
    client = client_of(directory, handler=server, registration="kt-token-x")
    first = b.mutation("alice")
    second = Submission(
        b.label_of("alice"), b.next_mutation("alice", first), b.opening("alice", 2), b.profile("alice", 2)
    )
    client.submit_many([made("bob"), second, replace(made("carol"), registration="own")])
    ((_, body),) = server.asked
    assert [one["registration"] for one in body["submissions"]] == ["kt-token-x", None, "own"]


def test_coroutines_have_it_too(directory: Directory) -> None:
    async def run() -> list[Submitted]:
        async with AsyncClient(
            "http://kt.test",
            MemoryStateStore(),
            transport=httpx.MockTransport(directory.handle),
            now=lambda: directory.now,
        ) as client:
            return await client.submit_many([made("bob"), made("carol")])

    assert shown(asyncio.run(run())) == ["accepted", "accepted"]


# --- Publishing many accounts ---


def accounts(*users: str, data: bytes = b"key") -> list[Wanted]:
    return [Wanted(b.label_of(user), (ProfileKey("laptop", "raw", data),)) for user in users]


def publish(client: Client, wanted: list[Wanted], **options: Any) -> Any:
    progress = BulkProgress(lambda: None, lambda: None)
    return publish_all(client, wanted, [b.private_key("owner")], progress, merging=MERGING, jobs=1, **options)


@pytest.mark.parametrize("change", [None, without_batches], ids=["batches", "an older server"])
def test_accounts_are_published_in_few_requests_and_proven(
    directory: Directory, change: Callable[[httpx.Request], httpx.Response | None] | None
) -> None:
    server = Recorded(directory, change)
    client = client_of(directory, handler=server)
    wanted = [*accounts(*(f"user{number}" for number in range(20))), Wanted("nobody", ()), *accounts("alice")]
    report = publish(client, wanted)
    assert (report.published, report.unchanged) == (20, 0)
    # One is no address, and the owner of the other has another key.
    assert sorted(label for label, _ in report.refused) == [b.label_of("alice"), "nobody"]
    if change is None:
        assert server.sizes == [20]
    again = publish(client, wanted)
    assert (again.published, again.unchanged, len(again.refused)) == (0, 20, 2)
    more = publish(client, accounts("user1", "user2", data=b"another"))
    assert (more.published, more.extended, more.replaced) == (2, 2, 0)
    assert len(client.lookup(b.label_of("user1")).profile or ()) == 2
    replaced = publish(client, accounts("user1", "user3"), replace_keys=True)
    assert (replaced.published, replaced.replaced, replaced.unchanged) == (1, 1, 1)


def test_a_plan_names_what_would_happen(directory: Directory) -> None:
    client = client_of(directory)
    publish(client, accounts("bob", "carol"))
    planned = plan_all(
        client,
        [*accounts("bob"), *accounts("carol", data=b"another"), *accounts("dora"), Wanted("nobody", ())],
        merging=MERGING,
    )
    assert [one.action for one in planned] == [
        BulkAction.UNCHANGED, BulkAction.EXTENDED, BulkAction.NEW, BulkAction.REFUSED,
    ]  # fmt: skip
    assert "nobody" not in planned[3].problem


def test_an_import_that_was_interrupted_goes_on(directory: Directory) -> None:
    """The server is gone after the first group; what it took is not submitted again."""
    gone = [True]

    def change(request: httpx.Request) -> httpx.Response | None:
        if request.url.path == MUTATIONS_BATCH.path and gone[0] and len(server.sizes) > 1:
            return problem(500, "internal", "the front end failed")
        return None

    server = Recorded(directory, change)
    client = client_of(directory, handler=server)
    # Two groups, because of their bytes.
    wanted = accounts(*(f"user{number}" for number in range(9)), data=bytes(100_000))
    with pytest.raises(UnavailableError):
        publish(client, wanted)
    assert server.sizes == [6, 3]
    gone[0] = False
    report = publish(client, wanted)
    assert (report.published, report.unchanged, report.refused) == (3, 6, [])


def test_another_change_that_came_first_is_reported(directory: Directory) -> None:
    def change(request: httpx.Request) -> httpx.Response | None:
        if request.url.path == MUTATIONS_BATCH.path:
            directory.put_user("bob")
            directory.advance()
        return None

    report = publish(client_of(directory, handler=Recorded(directory, change)), accounts("bob", "carol"))
    assert report.published == 1
    ((label, reason),) = report.refused
    assert label == b.label_of("bob")
    assert "stale" in reason


def test_a_label_twice_is_published_once(directory: Directory) -> None:
    report = publish(client_of(directory), accounts("bob", "carol", "bob"))
    assert report.published == 2
    assert [label for label, _ in report.refused] == [b.label_of("bob")]
