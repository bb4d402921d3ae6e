"""A client asks a real front end what became of a submission, and no false answer is believed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from kt_es.api.operations import STATUS
from kt_es.api.statuses import SubmissionState
from kt_es.client.changes import Submission
from kt_es.client.client import Client
from kt_es.client.state import MemoryStateStore
from kt_es.crypto.hashes import log_leaf_hash
from kt_es.errors import EquivocationError, MalformedError, StaleHeadError, VerificationError
from kt_es.formats.entries import Mutation
from kt_es.formats.heads import Checkpoint, SignedMapHead, heads_origin, sign_checkpoint
from kt_es.formats.notes import decode_base64, encode_base64
from kt_es.formats.queue import Verdict
from kt_es.formats.statuses import StatusAnswer
from kt_es.ledger.proofs import prove_range
from kt_es.merkle.log import LogState
from tests import builders as b
from tests.reference.frontends import Front, front, until
from tests.reference.signed_streams import SignedStreams

BOB = b.mutation("bob")
OTHER = b.mutation("bob", keys=[b.private_key("other")])
Change = Callable[[dict[str, Any]], dict[str, Any]]


def submission(user: str, made: Mutation) -> Submission:
    version = made.entry.version
    return Submission(b.label_of(user), made, b.opening(user, version), b.profile(user, version))


OF_BOB, OF_OTHER = submission("bob", BOB), submission("bob", OTHER)


@pytest.fixture
def streams() -> SignedStreams:
    """alice in epoch 1. In epoch 2 bob's entry is accepted and another one of bob's label is not."""
    streams = SignedStreams()
    streams.put_user("alice")
    streams.epoch()
    streams.opening("bob", BOB)
    streams.put(BOB)
    streams.put(OTHER)
    streams.epoch()
    return streams


@pytest.fixture
def running(streams: SignedStreams) -> Iterator[Front]:
    with front(streams) as made:
        yield made


def client_of(
    running: Front,
    change: Change = lambda body: body,
    *,
    later: int = 0,
    state: MemoryStateStore | None = None,
) -> Client:
    """A client of ``running`` whose answers about submissions ``change`` has passed."""

    def handle(request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode()
        headers = {"content-type": "application/json"}
        answer = running.request(request.method, path, content=request.content, headers=headers)
        content = answer.content
        if path == STATUS.path and answer.status_code == 200:
            content = json.dumps(change(answer.json())).encode()
        return httpx.Response(answer.status_code, content=content)

    def now() -> int:
        return b.START + 1_000 * (running.ledger.committed.epoch + 1) + later

    state = state or MemoryStateStore()
    return Client("http://kt.test", state, transport=httpx.MockTransport(handle), now=now)


def published(running: Front) -> None:
    running.streams.epoch()
    until(running.caught_up)


def test_each_state_of_a_submission(running: Front) -> None:
    client = client_of(running)
    carol = client.prepare("carol@example.org", [], [b.private_key("carol")])
    assert client.status(carol).state is SubmissionState.UNKNOWN
    receipt = client.submit(carol)
    pending = client.status(carol)
    assert (pending.state, pending.epoch, pending.verdict) == (SubmissionState.PENDING, 2, None)
    assert (pending.mutation, pending.took_effect) == (receipt.mutation, False)
    published(running)
    done = client.status(carol)
    assert (done.state, done.epoch, done.verdict) == (SubmissionState.DECIDED, 3, "accepted")
    assert done.took_effect
    assert done.sequence is not None
    # The state of the client has advanced to the log of the answer.
    assert client.trusted().size == 3


def test_a_refusal_is_proven_too(running: Front) -> None:
    status = client_of(running).status(OF_OTHER)
    assert (status.verdict, status.epoch, status.took_effect) == ("conflict", 2, False)


def test_what_came_again_has_taken_effect(running: Front) -> None:
    """Of data that do not know the acceptance any more, only the repetition."""
    table = running.ledger.tables.decisions
    rows = [(table.FAMILY, key, None) for key, _ in running.store.scan(table.FAMILY, table.PREFIX)]
    running.streams.put(BOB, b.mutation("dave"))
    published(running)
    running.store.write([*rows, *table.put_kept(table.kept()._replace(since=6))])
    status = client_of(running).status(OF_BOB)
    assert (status.verdict, status.epoch, status.took_effect) == ("replay", 3, True)


def test_the_map_proves_what_old_data_do_not_know(running: Front) -> None:
    table = running.ledger.tables.decisions
    rows = [(table.FAMILY, key, None) for key, _ in running.store.scan(table.FAMILY, table.PREFIX)]
    running.store.write([*rows, *table.put_kept(table.kept()._replace(since=6))])
    status = client_of(running).status(OF_BOB)
    assert (status.state, status.verdict, status.sequence) == (SubmissionState.DECIDED, "accepted", None)
    other = client_of(running).status(OF_OTHER)
    assert (other.state, other.complete_from) == (SubmissionState.UNKNOWN, 6)


def test_whoever_denies_a_decision_needs_a_fresh_head(running: Front) -> None:
    client = client_of(running, later=10**9)
    carol = submission("carol", b.mutation("carol"))
    with pytest.raises(StaleHeadError):
        client.status(carol)
    assert client.status(OF_BOB).took_effect


def test_an_epoch_that_comes_meanwhile_is_no_lie(running: Front) -> None:
    answers = []

    def slow(body: dict[str, Any]) -> dict[str, Any]:
        answers.append(body["state"])
        if len(answers) == 1:
            published(running)
        return body

    client = client_of(running, slow)
    made = running.streams.put_user("carol")
    assert client.status(submission("carol", made)).took_effect
    assert answers == ["pending", "decided"]


# One lie about a mutation that was accepted (BOB), or about one that was refused (OTHER).

NOTHING = {"verdict": None, "record": None, "answer": None}


def undecided(state: str, **more: object) -> Change:
    return lambda body: {**body, **NOTHING, "state": state, "consistency": [], "epoch": 2, **more}


def answered(change: Callable[[StatusAnswer], StatusAnswer], **more: object) -> Change:
    def changed(body: dict[str, Any]) -> dict[str, Any]:
        answer = change(StatusAnswer.decode(decode_base64(body["answer"], "answer")))
        where = {"sequence": answer.sequence, "queue_revision": answer.revision, "position": answer.position}
        told = {"verdict": answer.verdict.label, "record": where, "answer": encode_base64(answer.encode())}
        return {**body, **told, **more}

    return changed


def forged(**changes: object) -> Callable[[StatusAnswer], StatusAnswer]:
    """A head that the signer's key signs and that the log does not have."""

    def change(true: StatusAnswer) -> StatusAnswer:
        head = replace(SignedMapHead.decode(true.smhs[-1]).head, **changes)  # type: ignore[arg-type]
        return replace(true, smhs=(*true.smhs[:-1], SignedMapHead.sign(head, b.SIGNER).encode()))

    return change


LIES: dict[str, tuple[Submission, Change, str]] = {
    "unknown although accepted": (OF_BOB, undecided("unknown"), "record: the server says unknown"),
    "pending although accepted": (OF_BOB, undecided("pending"), "record: the server says pending"),
    "pending, and old data": (OF_BOB, undecided("pending", complete_from=9), "record: the server says pend"),
    "another state": (OF_BOB, undecided("lost"), "answer: has a state"),
    "an epoch before what is trusted": (OF_BOB, undecided("unknown", epoch=0), "rollback: "),
    "pending with a verdict": (OF_BOB, undecided("pending", verdict="accepted"), "answer: has a decision"),
    "another mutation": (OF_BOB, lambda body: {**body, "mutation": OTHER.entry_hash.hex()}, "answer: "),
    "no proof": (OF_BOB, lambda body: {**body, "answer": None}, "answer: "),
    "a proof cut short": (OF_BOB, lambda body: {**body, "answer": body["answer"][:-8]}, "answer: "),
    "refused although accepted": (
        OF_BOB,
        answered(lambda true: replace(true, verdict=Verdict.CONFLICT)),
        "record: the log of mutations of epoch 2 does not say conflict",
    ),
    "accepted although refused": (
        OF_OTHER,
        answered(lambda true: replace(true, verdict=Verdict.ACCEPTED)),
        "record: the log of mutations of epoch 2 does not say accepted",
    ),
    "another verdict beside the proof": (
        OF_OTHER,
        lambda body: {**body, "verdict": "accepted"},
        "record: says conflict in epoch 2",
    ),
    "another epoch beside the proof": (OF_BOB, lambda body: {**body, "epoch": 1}, "record: says accepted"),
    "another record beside the proof": (
        OF_BOB,
        lambda body: {**body, "record": {**body["record"], "position": 1}},
        "record: says accepted",
    ),
    "another sequence": (OF_BOB, answered(lambda true: replace(true, sequence=4)), "record: "),
    "a sequence of another epoch": (OF_BOB, answered(lambda true: replace(true, sequence=1)), "record: num"),
    "a sequence that is not there": (OF_BOB, answered(lambda true: replace(true, sequence=9)), "record: num"),
    "another revision": (OF_BOB, answered(lambda true: replace(true, revision=9)), "record: the log"),
    "another position": (OF_BOB, answered(lambda true: replace(true, position=9)), "record: the log"),
    "a hash too few": (
        OF_BOB, answered(lambda true: replace(true, inclusion=true.inclusion[1:])), "record: ",
    ),
    "another hash": (
        OF_BOB,
        answered(lambda true: replace(true, inclusion=(bytes(32), *true.inclusion[1:]))),
        "record: the log",
    ),
    "one head": (OF_BOB, answered(lambda true: replace(true, smhs=true.smhs[1:])), "map head: the heads"),
    "heads exchanged": (OF_BOB, answered(lambda true: replace(true, smhs=true.smhs[::-1])), "map head: "),
    "one head twice": (
        OF_BOB, answered(lambda true: replace(true, smhs=(true.smhs[0], true.smhs[0]))), "map head: ",
    ),
    "a forged head": (OF_BOB, answered(forged(log_root=bytes(32))), "map head: the one of epoch 2 is not"),
    "no proof of the heads": (OF_BOB, answered(lambda true: replace(true, heads_proof=(bytes(32),))), "map"),
    "another signature": (
        OF_BOB,
        answered(lambda true: replace(true, smhs=(true.smhs[0], true.smhs[1][:-1] + b"\0"))),
        "map head: ",
    ),
    "a checkpoint of nobody": (
        OF_BOB,
        answered(lambda true: replace(true, heads_checkpoint=true.heads_checkpoint.replace("\n2", "\n3"))),
        "checkpoint: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("asked", "change", "says"), LIES.values(), ids=LIES.keys())
def test_a_lie_is_refused(running: Front, asked: Submission, change: Change, says: str) -> None:
    with pytest.raises(VerificationError, match=f"^{says}"):
        client_of(running, change).status(asked)


def test_an_earlier_refusal_does_not_hide_that_it_was_accepted(running: Front) -> None:
    """A true record of the mutation, but not the one that counts."""
    second = b.next_mutation("carol", b.mutation("carol"))
    running.streams.put(second)
    published(running)
    shown: list[dict[str, Any]] = []

    def remember(body: dict[str, Any]) -> dict[str, Any]:
        shown.append(body)
        return body

    assert client_of(running, remember).status(submission("carol", second)).verdict == "stale"
    running.streams.put(b.mutation("carol"))
    running.streams.epoch()
    running.streams.opening("carol", second)
    running.streams.put(second, b.mutation("dave"))
    published(running)
    assert client_of(running).status(submission("carol", second)).verdict == "accepted"

    old = StatusAnswer.decode(decode_base64(shown[0]["answer"], "answer"))
    proof = prove_range(running.ledger, running.ledger.committed, 1, old.smhs)

    def old_record(true: StatusAnswer) -> StatusAnswer:
        return replace(old, heads_checkpoint=true.heads_checkpoint, heads_proof=proof)

    with pytest.raises(VerificationError, match="record: the server says stale, and the map of epoch 5"):
        client_of(running, answered(old_record, epoch=3)).status(submission("carol", second))


def test_a_head_that_contradicts_a_trusted_one_is_evidence(running: Front) -> None:
    """Two heads of epoch 2 that the signer signed, each in a log of its own."""
    state = MemoryStateStore()
    client_of(running, state=state).lookup(b.label_of("alice"))
    liar = client_of(running, answered(other_log), state=state)
    with pytest.raises(EquivocationError) as caught:
        liar.status(OF_BOB)
    assert caught.value.evidence is not None


def other_log(true: StatusAnswer) -> StatusAnswer:
    made = forged(map_root=bytes(32))(true)
    log, _ = LogState().append([log_leaf_hash(smh) for smh in made.smhs])
    name = heads_origin(b.ORIGIN)
    text = sign_checkpoint(Checkpoint(name, log.size, log.root()), name, b.SIGNER)
    return replace(made, heads_checkpoint=text)


def test_a_malformed_answer_is_named(running: Front) -> None:
    with pytest.raises(MalformedError, match="epoch"):
        client_of(running, lambda body: {**body, "epoch": "2"}).status(OF_BOB)
