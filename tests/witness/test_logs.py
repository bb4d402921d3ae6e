"""Which logs a witness knows: lists of logs, with one fault each."""

from __future__ import annotations

from pathlib import Path

import pytest

from kt_es.errors import ConfigError
from kt_es.formats.notes import verifier_key
from kt_es.witness.logs import MAX_LIST, MAX_LOGS, known_logs, parse_list
from tests import builders as b

FIRST = verifier_key("log.example.org/1", b.private_key("first").public)
SECOND = verifier_key("log.example.org/2", b.private_key("second").public)
LIST = f"""# a comment
logs/v0

vkey {FIRST.encode()}
qpd 1440
contact ops (at) example.org

\tvkey {SECOND.encode()}
origin other.example.org
qpd 24
contact https://example.org
"""


def test_a_list_gives_origin_and_key_of_each_log() -> None:
    assert parse_list(LIST.encode(), "list") == [("log.example.org/1", FIRST), ("other.example.org", SECOND)]


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("logs/v0", "logs/v1", "list: the first line of a list of logs is logs/v0"),
        ("# a comment", "\ufeff# a comment", "list:1: there is a byte order mark; save the list with LF"),
        ("\n", "\r\n", "list:1: there is a carriage return; save the list with LF alone"),
        ("qpd 24\n", "qpd 24\r\n", "list:10: there is a carriage return"),
        ("qpd 1440\n", "", "list:5: expected origin or qpd, found 'contact ops (at) example.org'"),
        ("qpd 1440", "qpd", "list:5: expected origin or qpd, found 'qpd'"),
        ("vkey", "key", "list:4: expected vkey, found 'key log"),
        ("+", "-", "list:4: 'log.example.org/1-"),
        ("contact https://example.org\n", "", "list: the last log has no contact; is the list complete"),
    ],
)
def test_a_fault_is_named_with_its_line(before: str, after: str, problem: str) -> None:
    assert before in LIST
    with pytest.raises(ConfigError) as caught:
        parse_list(LIST.replace(before, after).encode(), "list")
    assert problem in str(caught.value)


def test_bytes_that_are_no_list_are_refused() -> None:
    for data, problem in (
        (b"\xff", "is not UTF-8"),
        (b"", "the first line"),
        (bytes(MAX_LIST + 1), "at most"),
    ):
        with pytest.raises(ConfigError, match=problem):
            parse_list(data, "list")


def test_a_log_in_two_places_has_both_keys(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text(LIST)
    rotated = verifier_key(FIRST.name, b.private_key("rotated").public)
    assert known_logs([rotated.encode()], [path, path]) == {
        "log.example.org/1": (rotated, FIRST),
        "other.example.org": (SECOND,),
    }


def test_what_a_witness_cannot_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing cannot be read: No such file"):
        known_logs([], [tmp_path / "missing"])
    with pytest.raises(ConfigError, match="--log: 'junk' is no key of a log"):
        known_logs(["junk"], [])
    long = verifier_key("l" * 300, b.private_key("first").public)
    with pytest.raises(ConfigError, match="has an origin of 300 bytes"):
        known_logs([long.encode()], [])
    path = tmp_path / "many"
    entry = f"vkey {FIRST.encode()}\norigin {{}}\nqpd 1\ncontact x\n"
    path.write_text("logs/v0\n" + "".join(entry.format(number) for number in range(MAX_LOGS + 1)))
    with pytest.raises(ConfigError, match=f"there are {MAX_LOGS + 1} logs"):
        known_logs([], [path])
