"""A node that asks for TLS and a password: the right ones work, and the message says which one is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kt_es.errors import ConfigError, KtError
from kt_es.ledger.cassandra_settings import CassandraSettings
from tests.contracts.certificates import certify
from tests.reference.signing import wait_until
from tools.cassandra import Cluster

USER = "cassandra"
WRONG = "s3cret"


@pytest.fixture(scope="module")
def right(cassandra_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CassandraSettings]:
    """The settings for a node that asks for TLS and a password."""
    folder = tmp_path_factory.mktemp("secured")

    def certified(address: str) -> Path:
        made, file = certify(folder, address), folder / "node.pem"
        file.write_bytes(made.key.read_bytes() + made.certificate.read_bytes())
        return file

    with Cluster(folder / "data", certify=certified) as cluster:
        settings = CassandraSettings(
            cluster.addresses, "kt", cluster.port, user=USER, password=USER, tls_ca=folder / "ca.crt"
        )
        # The node makes its first user after it has begun to listen.
        wait_until(lambda: connects(settings), "the user exists")
        yield settings


def connects(settings: CassandraSettings) -> bool:
    from kt_es.ledger.cassandra import CassandraStore

    try:
        CassandraStore.connect(settings).close()
    except KtError as error:
        print(error)
        return False
    return True


def test_the_right_password_over_tls_works(right: CassandraSettings) -> None:
    from kt_es.ledger.cassandra import CassandraStore
    from kt_es.ledger.cassandra_schema import create_schema

    create_schema(right, 1)
    with closing(CassandraStore.connect(right)) as store:
        store.write([("pages", b"key", b"page")])
        assert store.get("pages", b"key") == b"page"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"password": WRONG}, "refuses the user 'cassandra': .*password in password_file"),
        ({"user": "", "password": ""}, "refuses a connection without a user: .*name the user in .* shared"),
        ({"tls_ca": "other"}, "the TLS handshake with .* fails: .*certificate verify failed.*tls_ca"),
        ({"tls_ca": None}, "at 127.* asks for TLS: .* tls_ca"),
    ],
    ids=["wrong password", "no user", "unknown authority", "no TLS"],
)
def test_what_is_wrong_is_named(
    right: CassandraSettings, changed: dict[str, Any], said: str, tmp_path: Path
) -> None:
    from kt_es.ledger.cassandra import CassandraStore

    if changed.get("tls_ca"):
        changed = {"tls_ca": certify(tmp_path).authority}
    wrong = dataclasses.replace(right, **changed)
    with pytest.raises(ConfigError, match=said) as raised:
        CassandraStore.connect(wrong)
    assert WRONG not in str(raised.value)
    assert connects(right)
