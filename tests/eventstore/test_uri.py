"""Connection strings."""

from __future__ import annotations

import pytest

from kt_es.errors import ConfigError
from kt_es.eventstore.connecting import connect, normalized


@pytest.mark.parametrize("scheme", ["esdb", "kurrentdb", "kdb", "KurrentDB"])
def test_names_of_one_meaning(scheme: str) -> None:
    assert normalized(f"{scheme}://u:p@a:1,b:2?tls=FALSE") == "esdb://u:p@a:1,b:2?tls=FALSE"
    assert normalized(f"{scheme}+discover://a:1") == "esdb+discover://a:1"


@pytest.mark.parametrize("scheme", ["esdb", "kurrentdb", "kdb"])
@pytest.mark.parametrize("option", ["Tls=false", "tls=False", "TLS=false"])
def test_they_connect(scheme: str, option: str) -> None:
    connect(f"{scheme}://127.0.0.1:1?{option}").close()


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("http://u:secret@a:1", "begins with none of"),
        ("a:1", "begins with none of"),
        ("", "begins with none of"),
        ("esdb://u:s3@secret@a:1?Tls=false", "the password has one of"),
        ("esdb://u:s3/secret@a:1?Tls=false", "the password has one of"),
        ("esdb://u:s3?secret@a:1?Tls=false", "the password has one of"),
        ("esdb://u:secret@a:1?Tsl=false", "'Tsl' is unknown"),
        ("esdb://u:secret@a:1?Tls", "Tls has no value"),
        ("esdb://u:secret@a:1?tls=", "Tls has no value"),
        ("esdb://u:secret@a:1?Tls=false&tls=true", "Tls is given twice"),
    ],
)
def test_what_is_wrong_is_named_and_no_password_repeated(uri: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as refused:
        connect(uri)
    assert "secret" not in str(refused.value)
