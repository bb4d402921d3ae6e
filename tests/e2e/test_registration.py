"""Registering with real processes: an operator closes the gate, and people come in by each way."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import SHORT, Stranger, running_up, until
from tests.e2e.test_workers import workers
from tests.reference.issuers import CLIENT_ID, Issuer, issuer
from tests.reference.mailboxes import Mailbox, mailbox

pytestmark = pytest.mark.e2e

GATE = """
[registration]
ways = ["tokens", "email", "oidc"]

[registration.email]
smtp = "127.0.0.1:{mail}"
security = "none"
sender = "keys@kt.example.org"

[registration.oidc]
issuer = "{issuer}"
client_id = "{client}"
"""


@pytest.fixture
def box() -> Iterator[Mailbox]:
    with mailbox() as made:
        yield made


@pytest.fixture
def issued() -> Iterator[Issuer]:
    with issuer() as made:
        yield made


def test_people_come_in_by_each_way(tmp_path: Path, box: Mailbox, issued: Issuer) -> None:
    with running_up(tmp_path / "data", *SHORT) as up:
        person = up.stranger(tmp_path / "person")
        person.kt("keys", "generate")
        (person.home / "key.raw").write_text("a key")
        put = ("--key", "key.raw", "--type", "raw")
        assert "just `kt put` it" in person.kt("register", "ways").out
        person.kt("put", "first@example.org", *put)

        operator = Stranger(tmp_path / "operator", KT_CONFIG=str(up.settings))
        operator.kt("registration", "key")
        token = operator.kt("registration", "token", "--labels", "bob@example.org").out.strip()
        text = up.settings.read_text().partition("[registration]")[0]
        up.settings.write_text(text + GATE.format(mail=box.port, issuer=issued.url, client=CLIENT_ID))
        os.kill(up.pid("frontend"), signal.SIGHUP)
        ways = until(
            lambda: [w for w in [person.kt("--json", "register", "ways").document["ways"]] if "email" in w],
            "the gate is closed",
        )
        assert ways == [["tokens", "email", "oidc"]]

        # Whoever has an account needs nothing, and whoever has none is told what to do.
        (person.home / "key.raw").write_text("another key")
        person.kt("put", "first@example.org", *put)
        refused = person.kt("put", "bob@example.org", *put, code=1).err
        for part in (
            "registration-required",
            "kt register mail",
            "kt register nonce",
            "--proof-file",
            issued.url,
        ):
            assert part in refused

        (person.home / "token").write_text(f"{token}\n")
        person.kt("put", "bob@example.org", *put, "--token-file", "token")
        assert (
            "for other labels" in person.kt("put", "x@example.org", *put, "--token-file", "token", code=1).err
        )

        asked = person.kt("--json", "register", "mail", "dave@example.org").document
        (mail,) = box.received
        assert mail.recipients == ["dave@example.org"]
        assert asked["check"] in mail.text
        thief = up.stranger(tmp_path / "thief")
        thief.kt("keys", "generate")
        (thief.home / "key.raw").write_text("a key")
        thief.environment["KT_REGISTRATION"] = mail.proof
        assert "not for this label with these keys" in thief.kt("put", "dave@example.org", *put, code=1).err
        person.environment["KT_REGISTRATION"] = mail.proof
        person.kt("put", "dave@example.org", *put)

        nonce = person.kt("register", "nonce", "carol@example.org").out.strip()
        claims = {"nonce": nonce, "email": "carol@example.org", "email_verified": True}
        person.environment["KT_REGISTRATION"] = issued.token(claims)
        person.kt("put", "carol@example.org", *put)
        person.kt("get", "carol@example.org")

        said = up.spoken
        for secret in ("example.org/", token, mail.proof, "dave@", "carol@"):
            assert secret not in said, secret


def test_a_gate_that_cannot_be_read_leaves_the_one_before(tmp_path: Path) -> None:
    with running_up(tmp_path / "data", *SHORT) as up:
        before = up.settings.read_text()
        up.settings.write_text(before.replace('ways = ["open"]', 'ways = ["tokens"]'))
        os.kill(up.pid("frontend"), signal.SIGHUP)
        up.wait_for_line("tokens.json is missing")
        person = up.stranger(tmp_path / "person")
        assert person.kt("--json", "register", "ways").document["ways"] == ["open"]


def test_every_worker_keeps_the_gate(tmp_path: Path) -> None:
    with running_up(tmp_path / "data", *SHORT) as up:
        operator = Stranger(tmp_path / "operator", KT_CONFIG=str(up.settings))
        operator.kt("registration", "token", "--labels", "bob@example.org")
        opened = up.settings.read_text()
        up.settings.write_text(opened.replace('ways = ["open"]', 'ways = ["tokens"]'))
        with workers(up, tmp_path / "workers", count=2) as front:
            told = [front.ask("GET", "/v1/registration")[1]["ways"] for _ in range(8)]
            assert told == [["tokens"]] * 8
            up.settings.write_text(opened)
            front.process.send_signal(signal.SIGHUP)
            until(lambda: front.spoken.count('"reloaded"') >= 3, "all three processes read it again")
            told = [front.ask("GET", "/v1/registration")[1]["ways"] for _ in range(8)]
            assert told == [["open"]] * 8
