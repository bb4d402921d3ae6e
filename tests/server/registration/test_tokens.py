"""Tokens: hashed in a file, for a pattern of labels, until they expire or are revoked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_es.errors import ConfigError
from kt_es.formats.registration import new_token, way_of
from kt_es.server.registration.claims import RegistrationError
from kt_es.server.registration.tokens import (
    Token,
    TokenWay,
    digest_of,
    matches,
    read_tokens,
    write_tokens,
)
from tests.server.registration.claims import Clock, claim

TEXT = new_token(bytes(32))
DIGEST = digest_of(TEXT)


def test_a_token_lets_in_whom_its_pattern_names_until_it_expires() -> None:
    clock = Clock()
    way = TokenWay((Token(DIGEST, "*@example.org", round(clock.now) + 60),), clock)
    way.check(claim("bob@example.org"), TEXT)
    way.check(claim("carol@example.org"), TEXT)
    with pytest.raises(RegistrationError, match="for other labels"):
        way.check(claim("bob@example.net"), TEXT)
    with pytest.raises(RegistrationError, match="not known here"):
        way.check(claim(), new_token(bytes(31) + b"\1"))
    clock.now += 60
    with pytest.raises(RegistrationError, match="has expired"):
        way.check(claim(), TEXT)


def test_a_token_is_recognized_by_its_form() -> None:
    assert way_of(TEXT) == "tokens"
    assert [way_of(text) for text in (TEXT + "x", TEXT[:-1], f" {TEXT}", TEXT + "\n", "")] == [None] * 5


@pytest.mark.parametrize(
    ("pattern", "label", "policy", "is_one"),
    [
        ("*", "anybody@example.org", "email", True),
        ("bob@example.org", "bob@example.org", "email", True),
        ("Bob@Example.ORG", "bob@example.org", "email", True),
        ("bob@example.org", "bob@example.org.evil", "text", False),
        ("*@example.org", "a@b@example.org", "text", True),
        ("*@example.org", "bob@example.orgx", "email", False),
        ("*@example.org", "@example.org", "text", True),
        ("*@EXAMPLE.org", "bob@example.org", "email", True),
        ("*@EXAMPLE.org", "bob@example.org", "text", False),
        ("*@xn--bcher-kva.example", "bob@bücher.example", "email", True),
        ("*@*.example.org", "bob@mail.example.org", "email", True),
        ("*@*.example.org", "bob@example.org", "email", False),
        ("a*a", "a", "text", False),
        ("a*a", "aa", "text", True),
        ("a*b*c", "a-b-c", "text", True),
        ("a*b*c", "a-c-b", "text", False),
        ("b?b", "bob", "text", False),
        ("b.b", "bob", "text", False),
        ("[a-z]ob", "bob", "text", False),
    ],
)
def test_patterns(pattern: str, label: str, policy: str, is_one: bool) -> None:
    assert matches(pattern, label, policy) == is_one


@given(st.text("ab*", max_size=8), st.text("ab", max_size=10))
def test_patterns_are_those_of_a_regular_expression(pattern: str, label: str) -> None:
    plain = ".*".join(map(re.escape, pattern.split("*")))
    assert matches(pattern, label, "text") == bool(re.fullmatch(plain, label, re.DOTALL))


class TestFile:
    def test_it_holds_hashes_alone_and_is_private(self, tmp_path: Path) -> None:
        file = tmp_path / "tokens.json"
        tokens = (Token(DIGEST, "*@example.org", 1_800_000_000, "for the école"), Token("0" * 64, "*", None))
        write_tokens(file, tokens)
        assert file.stat().st_mode & 0o777 == 0o600
        assert TEXT.removeprefix("kt-token-") not in file.read_text()
        assert read_tokens(file) == tokens

    def test_a_file_that_others_may_read_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "tokens.json"
        write_tokens(file, ())
        file.chmod(0o644)
        with pytest.raises(ConfigError, match="chmod 600"):
            read_tokens(file)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "[]",
            "{}",
            '{"tokens": {}}',
            '{"tokens": [], "more": 1}',
            '{"tokens": [], "tokens": []}',
            '{"tokens": [7]}',
            '{"tokens": [{"sha256": "00", "labels": "*", "until": null, "note": ""}]}',
            '{"tokens": [{"sha256": "%s", "labels": "", "until": null, "note": ""}]}',
            '{"tokens": [{"sha256": "%s", "labels": 1, "until": null, "note": ""}]}',
            '{"tokens": [{"sha256": "%s", "labels": "*", "until": true, "note": ""}]}',
            '{"tokens": [{"sha256": "%s", "labels": "*", "until": 1.5, "note": ""}]}',
            '{"tokens": [{"sha256": "%s", "labels": "*", "until": null}]}',
            '{"tokens": [{"sha256": "%s", "labels": "*", "until": null, "note": "", "uses": 1}]}',
        ],
    )
    def test_anything_else_is_refused_as_a_whole(self, tmp_path: Path, text: str) -> None:
        file = tmp_path / "tokens.json"
        file.touch(0o600)
        file.write_text(text.replace("%s", DIGEST))
        with pytest.raises(ConfigError, match=re.escape(str(file))):
            read_tokens(file)

    def test_a_token_twice_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "tokens.json"
        write_tokens(file, (Token(DIGEST, "a@example.org", None), Token(DIGEST, "*", None)))
        with pytest.raises(ConfigError, match="has a token twice"):
            read_tokens(file)
