"""``kt get`` of several labels, from the command line and from a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kt_es.cli.main import cli
from kt_es.cli.options import Reach
from kt_es.cli.people import many
from kt_es.client.state import MemoryStateStore
from kt_es.errors import ConfigError, LabelError, RefusedError, VerificationError
from tests import builders as b
from tests.reference.clients import changed, client_of
from tests.reference.directory import Directory

ALICE, BOB, NOBODY = (b.label_of(user) for user in ("alice", "bob", "nobody"))
Kt = Callable[..., Result]


@pytest.fixture
def directory() -> Directory:
    directory = Directory()
    directory.put_user("alice")
    directory.put_user("bob")
    directory.advance()
    directory.advance()
    return directory


@pytest.fixture
def kt(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> Kt:
    """``kt --json get`` with words, asking ``directory``; it remembers what it has seen."""
    store = MemoryStateStore()
    monkeypatch.setattr(Reach, "client", lambda _: client_of(directory, store))

    def run(*words: str, as_json: bool = True) -> Result:
        options = ["--json"] if as_json else []
        return CliRunner().invoke(cli, [*options, "get", *words], standalone_mode=False)

    return run


def documents(ran: Result) -> list[dict[str, Any]]:
    found = json.loads(ran.stdout)
    assert found.keys() == {"lookups"}
    return list(found["lookups"])


def test_each_label_has_its_document(kt: Kt) -> None:
    ran = kt(BOB, "Alice@example.org", ALICE)
    assert ran.return_value == 0
    shown = documents(ran)
    assert [one["label"] for one in shown] == [BOB, ALICE]
    assert shown[0].pop("since_last_time") == {"seen_before": False}
    alone = json.loads(kt(BOB).stdout)
    # The second lookup remembers the first one.
    assert alone.pop("since_last_time")["changed"] is False
    assert shown[0].pop("checks")[-3:] == alone.pop("checks")[-3:]
    assert shown[0] == alone


def test_a_label_that_is_absent_gives_exit_code_3(kt: Kt) -> None:
    ran = kt(ALICE, NOBODY)
    assert ran.return_value == 3
    assert [one["absent"] for one in documents(ran)] == [False, True]


def test_people_see_each_label_beside_its_keys(kt: Kt) -> None:
    ran = kt(ALICE, NOBODY, BOB, as_json=False)
    lines = ran.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines] == [ALICE, NOBODY, BOB]
    assert lines[1] == f"{NOBODY}  (nobody)"
    assert lines[0].split("  ")[1:] == ["raw", "laptop", f"{len(b'alice 1')} bytes"]
    marks = ran.stderr.splitlines()
    heads = [line for line in marks if "signed map head" in line or "epoch 2" in line]
    assert heads, marks
    assert sum(line.startswith(f"✓ {NOBODY}: ") for line in marks) == 1
    assert len(marks) == len(set(marks))


def test_labels_come_from_a_file_as_well(kt: Kt, tmp_path: Path) -> None:
    path = tmp_path / "contacts"
    path.write_text(f"{BOB}\r\n\n  {ALICE}  \n")
    assert [one["label"] for one in documents(kt("--from", str(path)))] == [BOB, ALICE]
    assert [one["label"] for one in documents(kt(NOBODY, "--from", str(path)))] == [NOBODY, BOB, ALICE]
    path.write_text(f"{BOB}\n")
    assert json.loads(kt("--from", str(path)).stdout)["label"] == BOB


def test_a_past_epoch(kt: Kt) -> None:
    assert {one["epoch"] for one in documents(kt(ALICE, BOB, "--epoch", "1"))} == {1}
    assert isinstance(kt(ALICE, BOB, "--epoch", "7").exception, RefusedError)


def test_a_change_is_told(kt: Kt, directory: Directory) -> None:
    kt(ALICE, BOB)
    directory.put_user("alice", 2)
    directory.advance()
    ran = kt(ALICE, BOB)
    assert f"{ALICE}: CHANGED since" in ran.stderr
    assert f"{BOB}: CHANGED" not in ran.stderr
    assert [one["since_last_time"]["changed"] for one in documents(ran)] == [True, False]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "there is no label to look up"),
        ([ALICE, BOB, "--out", "proof"], "--out and --save are for one label"),
        ([ALICE, BOB, "--save", "keys"], "--out and --save are for one label"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(kt: Kt, words: list[str], problem: str) -> None:
    ran = kt(*words)
    assert problem in str(ran.exception)
    assert getattr(ran.exception, "exit_code", None) == 2


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"\xff\n", "is not UTF-8"), (b"\n \n", "has no labels"), (b"a" * 65, "has more than 64 bytes")],
)
def test_a_file_that_has_no_labels(
    kt: Kt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, problem: str
) -> None:
    monkeypatch.setattr(many, "MAX_LABELS_FILE", 64)
    path = tmp_path / "contacts"
    path.write_bytes(content)
    error = kt("--from", str(path)).exception
    assert isinstance(error, ConfigError)
    assert problem in str(error)


def test_a_wrong_label_fails_the_whole_list(kt: Kt) -> None:
    error = kt(ALICE, "no address").exception
    assert isinstance(error, LabelError)
    assert (error.exit_code, str(error)[:16]) == (2, "label: number 2 ")


def test_a_lie_about_one_label_fails_the_whole_list(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swap(body: dict[str, Any]) -> None:
        body["profiles"].reverse()

    client = client_of(directory, handler=changed(directory, "/v1/lookups", swap))
    monkeypatch.setattr(Reach, "client", lambda _: client)
    ran = CliRunner().invoke(cli, ["--json", "get", ALICE, BOB], standalone_mode=False)
    assert isinstance(ran.exception, VerificationError)
    assert ran.exception.exit_code == 4
    assert "commitment: does not open to the profile" in str(ran.exception)
    assert ran.stdout == ""
