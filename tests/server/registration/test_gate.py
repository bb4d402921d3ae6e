"""The gate at a front end: first versions pass it, later ones do not, and nothing tells who was let in."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from kt_es.formats.notes import encode_base64
from kt_es.formats.registration import binding_of, new_token, nonce_of
from kt_es.server.registration.gate import OPEN_WARNING, exposed
from kt_es.server.registration.settings import MailSettings, OidcSettings, RegistrationSettings
from kt_es.server.registration.tokens import Token, digest_of
from tests import builders as b
from tests.reference.frontends import Front, front, submission
from tests.reference.issuers import CLIENT_ID, issuer
from tests.reference.mailboxes import Mailbox, mailbox
from tests.reference.signed_streams import SignedStreams

TOKEN = new_token(bytes(32))
TOKENS = (Token(digest_of(TOKEN), "*@example.org", None),)
WITH_TOKENS = RegistrationSettings(("tokens",), TOKENS)
MUTATIONS = "/v1/mutations"


@contextmanager
def gated(settings: RegistrationSettings, folder: Path, *, exposed: bool = False) -> Iterator[Front]:
    """A front end with these ways, of a directory in which alice has published."""
    streams = SignedStreams()
    streams.put_user("alice")
    streams.epoch()
    made = Front(streams, registration=settings, data=folder, exposed=exposed)
    with front(streams, made=made):
        yield made


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[Front]:
    with gated(WITH_TOKENS, tmp_path) as made:
        yield made


def binding(user: str) -> bytes:
    return binding_of(b.ORIGIN, b.label_of(user), [b.public(b.private_key(user))])


def claims_of(user: str) -> dict[str, object]:
    """The claims of an ID token for ``user``, at the time of the front end."""
    times = {"iat": b.START / 1000, "exp": b.START / 1000 + 600}
    return {"nonce": nonce_of(binding(user)), "email": b.label_of(user), "email_verified": True, **times}


def queued(running: Front) -> int:
    return running.streams.log.last_revision(running.streams.names.queue)


def test_a_new_label_needs_a_proof_and_the_refusal_says_which(tokens: Front) -> None:
    before = queued(tokens)
    answer = tokens.post(MUTATIONS, submission("bob"))
    problem = answer.json()
    assert (answer.status_code, problem["reason"], problem["field"]) == (
        403,
        "registration-required",
        "registration",
    )
    assert problem["ways"] == ["tokens"]
    assert "a token from its operator" in problem["detail"]
    assert queued(tokens) == before
    answer = tokens.post(MUTATIONS, submission("bob", registration=TOKEN))
    assert (answer.status_code, answer.json()["registration"]) == (202, "tokens")
    assert queued(tokens) == before + 1


def test_the_verdict_says_it_too_and_a_repetition_checks_nothing_again(tokens: Front) -> None:
    body = submission("bob", registration=TOKEN, wait=30)
    with tokens.streams.signing():
        answer = tokens.post(MUTATIONS, body)
    assert (answer.status_code, answer.json()["registration"]) == (200, "tokens")
    again = tokens.post(MUTATIONS, submission("bob"))
    assert (again.status_code, again.json()["verdict"]) == (200, "accepted")
    assert again.json()["registration"] is None


def test_an_owner_needs_a_signature_and_nothing_else(tokens: Front) -> None:
    second = b.next_mutation("alice", b.mutation("alice"))
    answer = tokens.post(MUTATIONS, submission("alice", second))
    assert (answer.status_code, answer.json()["registration"]) == (202, None)
    other = b.private_key("mallory")
    stolen = b.next_mutation("alice", b.mutation("alice"), keys=[other])
    refused = tokens.post(MUTATIONS, submission("alice", stolen, registration=TOKEN))
    assert refused.json()["reason"] == "unauthorized"


@pytest.mark.parametrize(
    ("evidence", "problem"),
    [
        ("", "no registration proof"),
        ("x" * 100, "no registration proof"),
        (new_token(bytes(31) + b"x"), "not known here"),
        ("kt-mail-" + "A" * 32, "the way email is not in use here"),
        ("a.b.c", "the way oidc is not in use here"),
    ],
)
def test_what_is_no_proof_here(tokens: Front, evidence: str, problem: str) -> None:
    answer = tokens.post(MUTATIONS, submission("bob", registration=evidence))
    assert (answer.status_code, answer.json()["reason"]) == (403, "registration-refused")
    assert problem in answer.json()["detail"]
    assert answer.json()["ways"] == ["tokens"]


def test_a_proof_of_any_length_or_type_is_refused_early(tokens: Front) -> None:
    for evidence in ("x" * 8193, 7, [TOKEN], {"token": TOKEN}):
        answer = tokens.post(MUTATIONS, submission("bob", registration=evidence))
        assert (answer.status_code, answer.json()["field"]) == (400, "registration")
        assert "kt-token" not in answer.text


def test_tokens_are_those_of_the_last_reload(tokens: Front) -> None:
    gate = tokens.running.registration
    gate.renew(RegistrationSettings(("tokens",), ()))
    refused = tokens.post(MUTATIONS, submission("bob", registration=TOKEN))
    assert refused.json()["reason"] == "registration-refused"
    gate.renew(WITH_TOKENS)
    assert tokens.post(MUTATIONS, submission("bob", registration=TOKEN)).status_code == 202


def test_nobody_learns_who_was_let_in(tokens: Front, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as lines, tokens.streams.signing():
        tokens.post(MUTATIONS, submission("bob", registration=TOKEN, wait=30))
        tokens.post(MUTATIONS, submission("carol"))
        tokens.post(MUTATIONS, submission("carol", registration=new_token(bytes(31) + b"x")))
    metrics = tokens.get("/metrics").text
    assert 'kt_registrations_total{result="admitted",way="tokens"} 1.0' in metrics
    assert 'kt_registrations_total{result="refused",way="tokens"} 1.0' in metrics
    assert 'kt_registrations_total{result="refused",way="nobody"} 1.0' in metrics
    log = tokens.streams.log
    names = tokens.streams.names
    events = [
        event.data for stream in (names.queue, names.mutations, names.heads) for event in log.read(stream)
    ]
    for told in (str(lines), caplog.text, metrics, str(events)):
        assert TOKEN.removeprefix("kt-token-")[:10] not in told
        assert "kt-token" not in told
        assert "example.org" not in told.replace(b.ORIGIN, "")


def test_a_way_that_cannot_be_asked_is_an_outage(tmp_path: Path) -> None:
    with issuer() as made:
        made.status = 500
        settings = RegistrationSettings(("oidc",), oidc=OidcSettings(made.url, CLIENT_ID))
        token = made.token(claims_of("bob"))
        with gated(settings, tmp_path) as running:
            answer = running.post(MUTATIONS, submission("bob", registration=token))
            assert (answer.status_code, answer.json()["reason"]) == (503, "unavailable")
            assert "issuer" in answer.json()["detail"]
            assert answer.headers["retry-after"]
            owner = b.next_mutation("alice", b.mutation("alice"))
            assert running.post(MUTATIONS, submission("alice", owner)).status_code == 202


class TestAllWays:
    @pytest.fixture
    def box(self) -> Iterator[Mailbox]:
        with mailbox() as made:
            yield made

    @pytest.fixture
    def all_ways(self, box: Mailbox, tmp_path: Path) -> Iterator[tuple[Front, Any]]:
        with ExitStack() as stack:
            issued = stack.enter_context(issuer())
            settings = RegistrationSettings(
                ("tokens", "email", "oidc"),
                TOKENS,
                MailSettings(bytes(32), "keys@kt.example.org", "127.0.0.1", box.port, "none"),
                OidcSettings(issued.url, CLIENT_ID),
            )
            yield stack.enter_context(gated(settings, tmp_path)), issued

    def ask(self, running: Front, user: str, **changed: object) -> Any:
        body = {"label": b.label_of(user), "binding": encode_base64(binding(user)), **changed}
        return running.post("/v1/registration/mail", body)

    def test_each_way_lets_in(self, all_ways: tuple[Front, Any], box: Mailbox) -> None:
        running, issued = all_ways

        assert self.ask(running, "dave").status_code == 202
        proofs = {"bob": TOKEN, "carol": issued.token(claims_of("carol")), "dave": box.received[0].proof}
        found = [
            running.post(MUTATIONS, submission(user, registration=f" {proof}\n")).json()["registration"]
            for user, proof in proofs.items()
        ]
        assert found == ["tokens", "oidc", "email"]

    def test_they_are_told(self, all_ways: tuple[Front, Any]) -> None:
        running, issued = all_ways
        assert running.get("/v1/registration").json() == {
            "ways": ["tokens", "email", "oidc"],
            "issuer": issued.url,
            "client_id": CLIENT_ID,
        }
        detail = running.post(MUTATIONS, submission("bob")).json()["detail"]
        for part in ("a token from its operator", "POST /v1/registration/mail", issued.url):
            assert part in detail

    def test_a_mail_goes_to_free_labels_alone(self, all_ways: tuple[Front, Any], box: Mailbox) -> None:
        running = all_ways[0]
        answer = self.ask(running, "alice")
        assert (answer.status_code, answer.json()["reason"]) == (403, "registration-refused")
        assert "its owner signs each change" in answer.json()["detail"]
        for wrong in (
            {"binding": encode_base64(bytes(31))},
            {"label": "no address"},
            {"to": "x@example.org"},
        ):
            assert self.ask(running, "bob", **wrong).status_code == 400
        assert not box.received

    def test_nobody_is_flooded(self, all_ways: tuple[Front, Any], box: Mailbox) -> None:
        running = all_ways[0]
        assert [self.ask(running, "bob").status_code for _ in range(4)] == [202, 202, 202, 429]
        answer = self.ask(running, "bob")
        assert 3000 < int(answer.headers["retry-after"]) <= 3600
        assert "use the newest one" in answer.json()["detail"]
        assert len(box.received) == 3
        metrics = running.get("/metrics").text
        assert 'kt_registration_mails_total{result="sent"} 3.0' in metrics
        assert 'kt_registration_mails_total{result="limit-address"} 2.0' in metrics

    def test_the_proof_of_a_mail_is_of_no_use_to_whoever_else_reads_it(
        self, all_ways: tuple[Front, Any], box: Mailbox
    ) -> None:
        running = all_ways[0]
        self.ask(running, "bob")
        proof = box.received[0].proof
        thief = b.mutation("bob", keys=[b.private_key("mallory")])
        refused = running.post(MUTATIONS, submission("bob", thief, registration=proof))
        assert refused.json()["reason"] == "registration-refused"
        assert running.post(MUTATIONS, submission("bob", registration=proof)).status_code == 202


class TestOpen:
    def test_no_mail_is_sent_and_nothing_is_asked(self, tmp_path: Path) -> None:
        with gated(RegistrationSettings(), tmp_path) as running:
            answer = running.post(MUTATIONS, submission("bob", registration="whatever"))
            assert (answer.status_code, answer.json()["registration"]) == (202, "open")
            assert running.get("/v1/registration").json()["ways"] == ["open"]
            body = {"label": b.label_of("carol"), "binding": encode_base64(bytes(32))}
            refused = running.post("/v1/registration/mail", body)
            assert (refused.status_code, refused.json()["ways"]) == (403, ["open"])
            assert "registration" not in running.get("/readyz").json()

    def test_one_that_others_can_reach_says_so(self, tmp_path: Path) -> None:
        with gated(RegistrationSettings(), tmp_path, exposed=True) as running:
            assert running.get("/readyz").json()["registration"] == OPEN_WARNING
            running.running.registration.renew(WITH_TOKENS)
            assert "registration" not in running.get("/readyz").json()

    @pytest.mark.parametrize(
        ("host", "is_exposed"),
        [
            ("127.0.0.1", False),
            ("::1", False),
            ("localhost", False),
            ("0.0.0.0", True),
            ("::", True),
            ("192.0.2.1", True),
            ("kt.example.org", True),
        ],
    )
    def test_what_others_can_reach(self, host: str, is_exposed: bool) -> None:
        assert exposed(host) == is_exposed
