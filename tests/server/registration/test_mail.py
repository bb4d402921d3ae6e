"""Mail proofs: sent through a real SMTP server to the label alone, and of no use to anybody else."""

from __future__ import annotations

import smtplib
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from kt_es.errors import LabelError
from kt_es.formats.labels import normalize_label
from kt_es.formats.registration import check_code, mail_proof, mail_proof_end
from kt_es.server.registration.claims import RegistrationError
from kt_es.server.registration.mail import MailWay
from kt_es.server.registration.mail_limits import MailLimits, TooMany
from kt_es.server.registration.settings import MailSettings
from kt_es.server.registration.smtp import ascii_domain
from kt_es.server.responses import NotNowError
from tests import builders as b
from tests.reference.mailboxes import Mailbox, mailbox
from tests.server.registration.claims import Clock, claim, served

SECRET = bytes(range(32))
CLIENT = "192.0.2.7/32"
BOB = "bob@example.org"


def way(box: Mailbox, folder: Path, clock: Clock | None = None, **changed: Any) -> MailWay:
    settings = MailSettings(SECRET, "keys@kt.example.org", "127.0.0.1", box.port, security="none")
    clock = clock or Clock()
    limits = MailLimits(folder / "registration.sqlite", SECRET, clock)
    return MailWay(replace(settings, **changed), limits, clock)


@pytest.fixture
def box() -> Iterator[Mailbox]:
    with mailbox() as made:
        yield made


def test_the_mail_goes_to_the_label_and_says_what_to_do(box: Mailbox, tmp_path: Path) -> None:
    made = way(box, tmp_path)
    assert made.send(claim(), b.ORIGIN, CLIENT) is None
    (mail,) = box.received
    assert (mail.sender, mail.recipients) == ("keys@kt.example.org", [BOB])
    message = mail.message
    assert (message["to"], message["from"]) == (BOB, "keys@kt.example.org")
    assert message["auto-submitted"] == "auto-generated"
    assert b.ORIGIN in message["subject"]
    assert check_code(claim().binding) in mail.text
    assert "If it was not you, do nothing" in mail.text
    made.check(claim(), mail.proof)


def test_a_proof_is_of_no_use_with_other_labels_keys_or_directories(box: Mailbox, tmp_path: Path) -> None:
    clock = Clock()
    made = way(box, tmp_path, clock)
    made.send(claim(), b.ORIGIN, CLIENT)
    proof = box.received[0].proof
    for other in (claim("carol@example.org"), claim(BOB, "mallory"), claim(BOB, "bob", "mallory")):
        with pytest.raises(RegistrationError, match="not for this label with these keys"):
            made.check(other, proof)
    with pytest.raises(RegistrationError, match="not for this label"):
        way(box, tmp_path, secret=bytes(32)).check(claim(), proof)
    clock.now += 3599
    made.check(claim(), proof)
    clock.now += 1
    with pytest.raises(RegistrationError, match="expired"):
        made.check(claim(), proof)


def test_every_changed_character_spoils_a_proof() -> None:
    binding = claim().binding
    proof = mail_proof(SECRET, binding, 1_700_000_000)
    assert mail_proof_end(SECRET, binding, proof) == 1_700_000_000
    for at in range(len(proof)):
        for other in "A_x":
            changed = proof[:at] + other + proof[at + 1 :]
            assert changed == proof or mail_proof_end(SECRET, binding, changed) is None


# Of the server of the tests: it does not know that its socket speaks TLS already.
@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
def test_tls_and_login(tmp_path: Path) -> None:
    certified, context = served(tmp_path)
    login = ("keys", "secret of the mail server")
    options: dict[str, Any] = {"host": "localhost", "ca": certified.authority}
    for implicit, security in ((False, "starttls"), (True, "tls")):
        with mailbox(context, implicit=implicit, login=login) as box:
            made = way(box, tmp_path, security=security, user=login[0], password=login[1], **options)
            assert made.send(claim(), b.ORIGIN, CLIENT) is None
            (mail,) = box.received
            assert (mail.encrypted, mail.user) == (True, "keys")


def test_no_login_and_no_mail_without_the_tls_that_was_asked_for(tmp_path: Path) -> None:
    """A server, or somebody in between, that offers no TLS, or TLS with an unknown certificate."""
    certified, context = served(tmp_path)
    secret: dict[str, Any] = {"user": "keys", "password": "secret of the mail server", "host": "localhost"}
    with mailbox(login=("keys", "x")) as plain, mailbox(context, login=("keys", "x")) as unknown:
        for box, ca in ((plain, certified.authority), (unknown, None)):
            made = way(box, tmp_path, security="starttls", ca=ca, **secret)
            with pytest.raises(NotNowError, match="mail server of this directory cannot be used"):
                made.send(claim(), b.ORIGIN, CLIENT)
            assert (box.received, box.logins) == ([], [])


def test_a_wrong_password_is_an_outage_that_the_log_explains_without_it(tmp_path: Path) -> None:
    certified, context = served(tmp_path)
    with mailbox(context, login=("keys", "right")) as box, structlog.testing.capture_logs() as lines:
        made = way(
            box,
            tmp_path,
            host="localhost",
            security="starttls",
            ca=certified.authority,
            user="keys",
            password="wrong",
        )
        with pytest.raises(NotNowError):
            made.send(claim(), b.ORIGIN, CLIENT)
    assert (lines[0]["event"], lines[0]["code"]) == ("the mail server refuses this front end", 535)
    assert "wrong" not in str(lines)
    assert "example.org" not in str(lines)


def test_what_the_mail_server_refuses(box: Mailbox, tmp_path: Path) -> None:
    made = way(box, tmp_path, address_mails=100, client_mails=100)
    with structlog.testing.capture_logs() as lines:
        box.answers[BOB] = f"550 {BOB} is unknown"
        with pytest.raises(RegistrationError, match="does not deliver to this address"):
            made.send(claim(), b.ORIGIN, CLIENT)
        box.answers[BOB] = f"450 {BOB} later"
        with pytest.raises(NotNowError):
            made.send(claim(), b.ORIGIN, CLIENT)
        box.answers.clear()
        box.data_answer = f"554 no mail for {BOB}"
        with pytest.raises(NotNowError):
            made.send(claim(), b.ORIGIN, CLIENT)
    assert [line.get("code") for line in lines] == [550, 450, 554]
    assert "bob" not in str(lines)


def test_addresses_in_other_scripts(box: Mailbox, tmp_path: Path) -> None:
    made = way(box, tmp_path)
    domain = normalize_label("post@bücher.example", "email")
    made.send(claim(domain), b.ORIGIN, CLIENT)
    assert box.received[-1].recipients == ["post@xn--bcher-kva.example"]
    assert "SMTPUTF8" not in box.received[-1].options
    assert domain in box.received[-1].text
    local = normalize_label("用户@例え.jp", "email")
    made.send(claim(local), b.ORIGIN, CLIENT)
    assert box.received[-1].recipients == [ascii_domain(local)]
    assert "SMTPUTF8" in box.received[-1].options
    made.check(claim(local), box.received[-1].proof)
    with mailbox(utf8=False) as old:
        with pytest.raises(RegistrationError, match="cannot write to an address with such characters"):
            way(old, tmp_path).send(claim(local), b.ORIGIN, CLIENT)
        assert not old.received


def test_a_label_that_is_no_address_gets_no_mail(box: Mailbox, tmp_path: Path) -> None:
    made = way(box, tmp_path)
    for label in ("bob", "Bob@example.org", "bob@localhost", "a@b@example.org", "bob @example.org"):
        with pytest.raises(RegistrationError, match="no e-mail address"):
            made.send(claim(label, policy="text"), b.ORIGIN, CLIENT)
    made.send(claim(BOB, policy="text"), b.ORIGIN, CLIENT)
    assert len(box.received) == 1


@given(
    st.text(max_size=40),
    st.sampled_from(["\r\n", "\n", "\r", "\0", "\x0b", "\u2028", " ", ",", "<", ">", '"']),
)
def test_nothing_in_a_label_adds_a_header_or_a_recipient(text: str, sign: str) -> None:
    """Whatever has such a sign is no label of the policy ``email``, so it never reaches a mail."""
    with pytest.raises(LabelError):
        normalize_label(f"{text}{sign}bcc:x@example.org", "email")


class TestLimits:
    def test_of_one_address_whoever_asks(self, box: Mailbox, tmp_path: Path) -> None:
        clock = Clock()
        made = way(box, tmp_path, clock)
        for number in range(3):
            clock.now += 10
            assert made.send(claim(), b.ORIGIN, f"192.0.2.{number}/32") is None
        refused = made.send(claim(), b.ORIGIN, "192.0.2.99/32")
        assert refused == TooMany("address", 3580.0)
        assert len(box.received) == 3
        clock.now += 3580
        assert made.send(claim(), b.ORIGIN, CLIENT) is None

    def test_of_one_client_whomever_it_asks_for(self, box: Mailbox, tmp_path: Path) -> None:
        made = way(box, tmp_path, client_mails=2)
        outcomes = [made.send(claim(f"u{number}@example.org"), b.ORIGIN, CLIENT) for number in range(3)]
        assert outcomes[:2] == [None, None]
        assert outcomes[2] == TooMany("client", 3600.0)
        assert made.send(claim("u9@example.org"), b.ORIGIN, "198.51.100.1/32") is None

    def test_of_all_together(self, box: Mailbox, tmp_path: Path) -> None:
        made = way(box, tmp_path, all_mails=2)
        outcomes = [
            made.send(claim(f"u{number}@example.org"), b.ORIGIN, f"192.0.2.{number}/32")
            for number in range(3)
        ]
        assert outcomes == [None, None, TooMany("all", 3600.0)]

    def test_they_outlive_the_process_and_count_for_all_processes(self, box: Mailbox, tmp_path: Path) -> None:
        for _ in range(3):
            assert way(box, tmp_path).send(claim(), b.ORIGIN, CLIENT) is None
        assert isinstance(way(box, tmp_path).send(claim(), b.ORIGIN, CLIENT), TooMany)

    def test_a_mail_that_may_have_arrived_counts_and_one_that_was_never_sent_does_not(
        self, box: Mailbox, tmp_path: Path
    ) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            away = way(box, tmp_path, port=closed.getsockname()[1], address_mails=1)
            for _ in range(3):
                with pytest.raises(NotNowError):
                    away.send(claim(), b.ORIGIN, CLIENT)
        box.data_answer = "451 perhaps"
        made = way(box, tmp_path, address_mails=1)
        with pytest.raises(NotNowError):
            made.send(claim(), b.ORIGIN, CLIENT)
        assert isinstance(made.send(claim(), b.ORIGIN, CLIENT), TooMany)

    def test_the_file_names_nobody_and_is_private(self, box: Mailbox, tmp_path: Path) -> None:
        way(box, tmp_path).send(claim(), b.ORIGIN, CLIENT)
        file = tmp_path / "registration.sqlite"
        assert file.stat().st_mode & 0o777 == 0o600
        for secret in (b"bob", b"example.org", b"192.0.2"):
            assert secret not in file.read_bytes()

    def test_without_the_file_nothing_is_sent(self, box: Mailbox, tmp_path: Path) -> None:
        (tmp_path / "registration.sqlite").write_bytes(b"this is no database" * 100)
        with pytest.raises(NotNowError, match="cannot be sent now"):
            way(box, tmp_path).send(claim(), b.ORIGIN, CLIENT)
        assert not box.received


def test_the_server_of_the_tests_is_real(box: Mailbox) -> None:
    """It speaks SMTP with any client, so a mail that it received went over the wire."""
    with smtplib.SMTP("127.0.0.1", box.port) as server:
        assert server.noop()[0] == 250
