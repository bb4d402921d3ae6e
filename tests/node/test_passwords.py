"""Passwords with characters that a connection string cannot hold: percent-encoded they log in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from kt_es.errors import AccessDeniedError, ConfigError
from kt_es.eventstore.connecting import connect
from kt_es.eventstore.streams import ANY, content_event
from kt_es.node.access.users import add
from kt_es.node.server import NodeConfig
from tests.contracts.certificates import certify
from tests.contracts.nodes import ServedNode

PASSWORDS = ("p@ss", "a/b", "a#b", "a?b", "a:b", "50%", "%40", "a+b & c=d", "pässwörter", "plain")


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A node whose administrators have these passwords, and its authority."""
    folder = tmp_path_factory.mktemp("passwords")
    made = certify(folder)
    for number, password in enumerate(PASSWORDS):
        add(folder / "data", f"u{number}", password, ["$admins"])
    add(folder / "data", "u@home", "p", ["$admins"])
    config = NodeConfig(folder / "data", port=0, tls_cert=made.certificate, tls_key=made.key)
    with ServedNode(config) as node:
        yield node.address, made.authority


def written(secure: tuple[str, Path], userinfo: str) -> None:
    log = connect(f"esdb://{userinfo}@{secure[0]}?TlsCaFile={secure[1]}")
    try:
        log.append("s", ANY, [content_event("s", "T", userinfo.encode())])
    finally:
        log.close()


@pytest.mark.parametrize("number", range(len(PASSWORDS)))
def test_every_password_logs_in(secure: tuple[str, Path], number: int) -> None:
    written(secure, f"u{number}:{quote(PASSWORDS[number], safe='')}")


def test_a_user_may_be_encoded_too(secure: tuple[str, Path]) -> None:
    written(secure, "u%40home:p")


@pytest.mark.parametrize("raw", ["u4:a:b", "u5:50%", "u9:plain"])
def test_what_can_stand_there_may(secure: tuple[str, Path], raw: str) -> None:
    written(secure, raw)


def test_another_password_does_not_log_in(secure: tuple[str, Path]) -> None:
    with pytest.raises(AccessDeniedError):
        written(secure, "u0:p%2540ss")


@pytest.mark.parametrize("raw", ["u0:p@ss", "u1:a/b", "u2:a#b", "u3:a?b@c"])
def test_what_cannot_stand_there_is_reported_with_its_encoding(secure: tuple[str, Path], raw: str) -> None:
    with pytest.raises(ConfigError, match="%40 %2F %3F %23") as error:
        written(secure, raw)
    assert raw not in str(error.value)
