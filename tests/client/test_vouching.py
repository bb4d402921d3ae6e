"""Whose cosignatures a client needs: quorums, how old they may be, and front ends that lie about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_es.client import Client, Policies
from kt_es.client.state import MemoryStateStore
from kt_es.client.vouching import Quorum, Voucher, quorum_epoch
from kt_es.crypto import mldsa
from kt_es.crypto.mldsa import MlDsaKey
from kt_es.errors import EquivocationError, NoQuorumError, VerificationError
from kt_es.formats.cosignatures import (
    COSIGNATURE_ML_DSA,
    CosignerKey,
    cosign,
    cosign_ml_dsa,
    cosigner_key,
)
from kt_es.formats.notes import parse_note
from kt_es.formats.policies import Policy
from tests import builders as b
from tests.reference.clients import client_of
from tests.reference.directory import Directory, problem

ALICE = b.label_of("alice")
KEYS = {name: b.private_key(f"cosigner {name}") for name in ("w1", "w2", "w3", "m1")}
VKEYS = {name: cosigner_key(f"{name}.example/x", key.public) for name, key in KEYS.items()}
WITNESSES = Policy.parse(
    "".join(f"witness {name} {VKEYS[name]}\n" for name in ("w1", "w2", "w3"))
    + "group two 2 w1 w2 w3\nquorum two\n"
)
MONITORS = Policy.parse(f"witness m1 {VKEYS['m1']}\nquorum m1\n")
BOTH = Policies(WITNESSES, MONITORS)
SECOND = b.START // 1000


def directory(*users: str) -> Directory:
    made = Directory()
    for user in users:
        made.put_user(user)
        made.advance()
    return made


@pytest.fixture(scope="module")
def ours() -> Directory:
    return directory("alice", "bob", "carol", "dave")


def cosigned(made: Directory, size: int, *names: str, time: int = SECOND) -> str:
    note = made.heads_checkpoint(size)
    text = parse_note(note).text
    return note + "".join(cosign(text, f"{name}.example/x", KEYS[name], time) for name in names)


class Server:
    """``made`` with ``notes`` as the cosigned heads; ``asked`` counts the questions about them."""

    def __init__(self, made: Directory, *notes: str) -> None:
        self.made = made
        self.notes = list(notes)
        self.asked = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/cosigned":
            self.asked += 1
            body = json.dumps({"heads": self.notes, "mutations": []})
            return httpx.Response(200, content=body.encode())
        return self.made.handle(request)

    def client(self, policies: Policies, **options: Any) -> Client:
        return client_of(self.made, MemoryStateStore(), self, policies=policies, **options)


def test_a_quorum_of_both_kinds(ours: Directory) -> None:
    server = Server(ours, cosigned(ours, 4, "w1", "m1"), cosigned(ours, 3, "w2", time=SECOND - 60))
    client = server.client(BOTH)
    assert client.lookup(ALICE).epoch == 4
    vouched = client.vouching.last
    assert vouched is not None
    timestamp = ours.heads[2].smh.head.timestamp
    assert vouched.epoch == 4
    assert vouched.quorums == (
        Quorum("witnesses", "two", 3, timestamp),
        Quorum("monitors", "m1", 4, ours.heads[3].smh.head.timestamp),
    )
    assert set(vouched.vouchers) == {
        Voucher("witnesses", "w1", 4, SECOND),
        Voucher("witnesses", "w2", 3, SECOND - 60),
        Voucher("monitors", "m1", 4, SECOND),
    }


QUESTIONS: Mapping[str, Callable[[Client], object]] = {
    "lookup": lambda client: client.lookup(ALICE),
    "lookups": lambda client: client.lookup_many([ALICE]),
    "history": lambda client: client.history(ALICE),
    "range": lambda client: client.range(ALICE, 1, 2),
    "head": lambda client: client.head(),
    "an earlier epoch": lambda client: client.lookup(ALICE, 1),
}


@pytest.mark.parametrize("ask", QUESTIONS.values(), ids=QUESTIONS.keys())
def test_without_a_quorum_nothing_is_answered(ours: Directory, ask: Callable[[Client], object]) -> None:
    server = Server(ours, cosigned(ours, 4, "w1", "m1"))
    client = server.client(BOTH)
    with pytest.raises(
        NoQuorumError, match="no quorum two of witnesses: w1 vouched, and w2, w3 did not"
    ) as caught:
        ask(client)
    assert (caught.value.exit_code, caught.value.step) == (8, "policy")
    server.notes.append(cosigned(ours, 2, "w3"))
    ask(client)


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (Policies(witnesses=WITNESSES), "no quorum two of witnesses: nobody vouched, and w1, w2, w3 did not"),
        (Policies(monitors=MONITORS), "no quorum m1 of monitors: nobody vouched, and m1 did not"),
    ],
)
def test_nobody_vouches(ours: Directory, policy: Policies, said: str) -> None:
    with pytest.raises(NoQuorumError, match=said):
        Server(ours).client(policy).lookup(ALICE)


def test_a_monitor_does_not_count_as_a_witness(ours: Directory) -> None:
    with pytest.raises(NoQuorumError, match="of witnesses: w1 vouched"):
        Server(ours, cosigned(ours, 4, "w1", "m1")).client(Policies(witnesses=WITNESSES)).lookup(ALICE)


def test_a_policy_that_needs_nobody(ours: Directory) -> None:
    client = Server(ours).client(Policies(Policy.parse("quorum none\n")))
    client.lookup(ALICE)
    assert client.vouching.last is not None
    assert client.vouching.last.quorums == (Quorum("witnesses", "none", 0, 0),)


def test_without_policies_nothing_is_asked(ours: Directory) -> None:
    server = Server(ours)
    client = server.client(Policies())
    client.lookup(ALICE)
    assert (server.asked, client.vouching.last) == (0, None)


def test_a_quorum_may_be_older_than_the_head_by_so_much_and_no_more(ours: Directory) -> None:
    ages = [ours.heads[3].smh.head.timestamp - head.smh.head.timestamp for head in ours.heads]
    server = Server(ours, cosigned(ours, 2, "w1", "w2"))
    server.client(Policies(WITNESSES, age=ages[1] / 1000)).lookup(ALICE)
    with pytest.raises(NoQuorumError, match="vouches up to epoch 2 only"):
        server.client(Policies(WITNESSES, age=ages[1] / 1000 - 0.001)).lookup(ALICE)


def test_a_log_that_goes_on_needs_new_cosignatures() -> None:
    made = directory("alice", "bob")
    server = Server(made, cosigned(made, 2, "w1", "w2"))
    client = server.client(Policies(WITNESSES, age=0.5))
    client.lookup(ALICE)
    asked = server.asked
    client.lookup(ALICE)
    assert server.asked == asked, "an answer counts for a few seconds"
    made.put_user("carol")
    made.advance()
    with pytest.raises(NoQuorumError, match="whose head is"):
        client.lookup(ALICE)
    server.notes.insert(0, cosigned(made, 3, "w1", "w2"))
    client.lookup(ALICE)


def test_a_cosigned_log_that_is_another_one_is_evidence(ours: Directory) -> None:
    """The split view: witnesses saw another log than this front end shows."""
    theirs = directory("alice", "mallory", "trent")
    client = Server(ours, cosigned(theirs, 3, "w1", "w2")).client(Policies(WITNESSES))
    with pytest.raises(EquivocationError, match="two different logs of 3 leaves"):
        client.lookup(ALICE)


def test_evidence_withheld_is_not_believed(ours: Directory) -> None:
    theirs = directory("alice", "mallory", "trent")
    server = Server(ours, cosigned(theirs, 3, "w1", "w2"))

    def handle(request: httpx.Request) -> httpx.Response:
        return problem(404, "gone", "no") if request.url.path == "/v1/heads/3" else server(request)

    with pytest.raises(VerificationError) as caught:
        client_of(ours, handler=handle, policies=Policies(WITNESSES)).lookup(ALICE)
    assert caught.value.step == "comparison"


def test_what_a_front_end_makes_up_counts_as_nothing(ours: Directory) -> None:
    good = cosigned(ours, 4, "w1", "w2")
    name, _, rest = good.rpartition("— w2.example/x ")[2].partition("A")
    forged = good.replace(
        f"— w2.example/x {name}A{rest}", cosign("another\n1\n", "w2.example/x", KEYS["w2"], 9)
    )
    unsigned = good.replace("— kt.example.org/people/heads", "— kt.example.org/other/heads", 1)
    future = cosigned(ours, 4, "w1", "w2", time=SECOND + 10_000)
    for note in (forged, unsigned, future, "", "x", good[:-5]):
        with pytest.raises(NoQuorumError):
            Server(ours, note).client(Policies(WITNESSES)).lookup(ALICE)


@pytest.mark.parametrize("body", [{}, {"heads": ["x"] * 17, "mutations": []}, {"heads": 5, "mutations": []}])
def test_answers_that_are_malformed(ours: Directory, body: object) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/cosigned":
            return httpx.Response(200, content=json.dumps(body).encode())
        return ours.handle(request)

    with pytest.raises(Exception, match=r"heads|cosigned"):
        client_of(ours, handler=handle, policies=Policies(WITNESSES)).lookup(ALICE)


@pytest.mark.skipif(not mldsa.is_available(), reason="the installed cryptography has no ML-DSA-44")
def test_a_key_of_ml_dsa_vouches(ours: Directory) -> None:
    key = MlDsaKey.from_seed(bytes(32))
    vkey = CosignerKey("pq.example", key.public, COSIGNATURE_ML_DSA).vkey
    note = ours.heads_checkpoint(4)
    line = cosign_ml_dsa(parse_note(note).text, "pq.example", key, SECOND)
    policy = Policy.parse(f"witness pq {vkey}\nquorum pq\n")
    assert Server(ours, note + line).client(Policies(policy)).lookup(ALICE).epoch == 4


def test_an_older_front_end_has_none(ours: Directory) -> None:
    with pytest.raises(NoQuorumError, match="the server has no cosigned heads"):
        client_of(ours, policies=Policies(WITNESSES)).lookup(ALICE)


def test_a_witness_with_a_key_that_cannot_be_verified_here_is_named(
    ours: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.formats.test_policies import vkey

    # As with an older version of the library.
    monkeypatch.setattr(mldsa, "is_available", lambda: False)
    policy = Policy.parse(f"witness pq {vkey('pq.example', 1, 0x06, 1312)}\nquorum pq\n")
    with pytest.raises(NoQuorumError, match="pq cannot be verified here: ML-DSA-44"):
        Server(ours, cosigned(ours, 4, "w1")).client(Policies(policy)).lookup(ALICE)


@given(st.dictionaries(st.sampled_from(["w1", "w2", "w3"]), st.integers(0, 5)))
def test_the_quorum_reaches_as_far_as_its_second_best(epochs: dict[str, int]) -> None:
    reached = sorted((epoch for epoch in epochs.values() if epoch), reverse=True)
    assert quorum_epoch(WITNESSES, epochs) == (reached[1] if len(reached) > 1 else None)
