"""``[registration]`` of ``kt.toml``: what it may say, and the files that it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kt_es.config.settings import FILE_NAME, load_settings
from kt_es.errors import ConfigError
from kt_es.server.registration.settings import ANYBODY, RegistrationSettings
from kt_es.server.registration.tokens import write_tokens
from tests.cli.test_config import GOOD, problem_of

EMAIL = """[registration]
ways = ['email']
[registration.email]
smtp = 'mail.example.org:587'
sender = 'a@example.org'
"""
OIDC = """[registration]
ways = ['oidc']
[registration.oidc]
client_id = 'kt'
issuer = 'https://id.example.org'
"""
KEY = "ab" * 32


def read(folder: Path, text: str) -> RegistrationSettings:
    (folder / FILE_NAME).write_text(GOOD + text)
    return load_settings(folder / FILE_NAME).registration.settings(folder)


def private(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.touch(0o600)
    path.write_text(text)


def test_without_it_anybody_may_register(tmp_path: Path) -> None:
    assert read(tmp_path, "") == ANYBODY
    assert ANYBODY.ways == ("open",)


def test_all_ways_together(tmp_path: Path) -> None:
    write_tokens(tmp_path / "keys/tokens.json", ())
    private(tmp_path / "keys/registration.key", f"{KEY}\n")
    private(tmp_path / "password", "secret of the mail server\n")
    text = (
        EMAIL.replace("['email']", "['tokens', 'email', 'oidc']")
        + "user = 'keys'\npassword_file = 'password'\nminutes = 30\ntls_ca = 'ca.pem'\n"
        + OIDC.partition("]\n")[2].partition("\n")[2]
    )
    found = read(tmp_path, text)
    assert (found.ways, found.tokens) == (("tokens", "email", "oidc"), ())
    assert found.mail is not None
    assert (found.mail.host, found.mail.port, found.mail.security) == ("mail.example.org", 587, "starttls")
    assert (found.mail.secret, found.mail.password) == (bytes.fromhex(KEY), "secret of the mail server")
    assert (found.mail.lifetime, found.mail.ca) == (1800, tmp_path / "ca.pem")
    assert found.oidc is not None
    assert (found.oidc.issuer, found.oidc.algorithms) == ("https://id.example.org", ("RS256", "ES256"))
    assert "secret of the mail server" not in repr(found)
    assert KEY not in repr(found)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[registration]\nways = []\n", "registration: ways must name at least one way"),
        ("[registration]\nways = ['tokens', 'tokens']\n", "registration: ways must name"),
        (
            "[registration]\nways = ['invitation']\n",
            "'invitation' is no way to register: name one of open, tokens",
        ),
        ("[registration]\nways = ['open', 'tokens']\n", "the way open lets anybody in: name it alone"),
        (
            "[registration]\nways = ['email']\n",
            r"the way email needs its settings: add \[registration.email\]",
        ),
        ("[registration]\nways = ['oidc']\n", r"the way oidc needs its settings: add \[registration.oidc\]"),
        ("[registration]\nway = 'open'\n", "registration.way: "),
        (f"{EMAIL}security = 'none'\n", "would show proofs and password to the network"),
        (f"{EMAIL}security = 'no'\n", "registration.email.security: "),
        (f"{EMAIL}user = 'keys'\n", "user and password_file belong together"),
        (f"{EMAIL}minutes = 1\n", "registration.email.minutes: "),
        (f"{EMAIL}address_mails = 0\n", "registration.email.address_mails: "),
        (EMAIL.replace("a@example.org", "a@example.org>\\r\\nBcc: x"), "it is no e-mail address in ASCII"),
        (EMAIL.replace(":587", ""), "registration.email.smtp: "),
        (OIDC.replace("https", "http"), "it must begin with https://"),
        (OIDC.replace(".org'", ".org?a=b'"), "it must begin with https://, and have neither user"),
        (f"{OIDC}algorithms = ['HS256']\n", "'HS256' is none of RS256"),
        (f"{OIDC}algorithms = ['none']\n", "'none' is none of RS256"),
        (f"{OIDC}algorithms = []\n", "registration.oidc.algorithms: "),
    ],
)
def test_what_it_cannot_say(tmp_path: Path, text: str, problem: str) -> None:
    assert re.search(problem, problem_of(tmp_path, GOOD + text))


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"tokens.json is missing: make a token with `kt registration token`"
    ):
        read(tmp_path, "[registration]\nways = ['tokens']\n")
    with pytest.raises(ConfigError, match=r"registration.key is missing: make it with `kt registration key`"):
        read(tmp_path, EMAIL)
    for key in ("ab" * 31, "xy" * 32, KEY + "\nmore"):
        private(tmp_path / "keys/registration.key", key)
        with pytest.raises(ConfigError, match=r"registration\.key must"):
            read(tmp_path, EMAIL)
    (tmp_path / "keys/registration.key").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read(tmp_path, EMAIL)


def test_a_mail_server_on_this_machine_needs_no_tls(tmp_path: Path) -> None:
    private(tmp_path / "keys/registration.key", KEY)
    local = EMAIL.replace("mail.example.org:587", "127.0.0.1:25") + "security = 'none'\n"
    found = read(tmp_path, local)
    assert found.mail is not None
    assert found.mail.security == "none"
