"""With ``--json`` standard output carries exactly one document, also where a command fails."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from kt_es.cli import main as cli
from kt_es.client.states import KeyStore
from kt_es.errors import KtError
from tests import builders as b
from tests.reference.clients import client_of
from tests.reference.directory import Directory

NOBODY = ("--server", "http://127.0.0.1:1", "--timeout", "0.5")


def ran(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object
) -> tuple[int, Any]:
    """The exit code of ``kt --json`` and its document."""
    monkeypatch.setattr(sys, "argv", ["kt", "--json", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code, json.loads(capsys.readouterr().out)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def test_an_outage_is_a_document(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = ran(monkeypatch, capsys, "get", "alice@example.org", *NOBODY)
    error = document["error"]
    assert (code, error["exit_code"], error["kind"]) == (7, 7, "cannot-tell")
    assert "127.0.0.1:1 does not answer" in error["problem"]


def test_wrong_usage_is_a_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (("get",), ("get", "--nope"), ("keys", "nope"), ("nope",)):
        code, document = ran(monkeypatch, capsys, *words)
        assert (code, document["error"]["kind"]) == (2, "unusable")


def test_a_file_that_is_no_proof_is_unusable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for data in (b"", b"# A page\n", bytes(100), b"\x00\xff"):
        (tmp_path / "file").write_bytes(data)
        code, document = ran(monkeypatch, capsys, "verify", tmp_path / "file")
        assert (code, document["error"]["kind"]) == (2, "unusable")
        assert document["error"]["problem"].endswith(
            "is neither a saved proof nor evidence: name a file that kt get --out wrote"
        )


def test_a_proof_that_was_changed_does_not_verify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = Directory()
    directory.put_user("alice")
    directory.advance()
    proof = client_of(directory).lookup(b.label_of("alice")).proof.encode()
    (tmp_path / "proof").write_bytes(proof[:-40] + b"x" + proof[-39:])
    code, document = ran(monkeypatch, capsys, "verify", tmp_path / "proof")
    error = document["error"]
    assert (code, error["kind"]) == (4, "verification-failed")
    assert error["problem"].startswith(f"{error['step']}: ")


def test_what_was_printed_before_the_failure_is_the_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keys"
    KeyStore(keys).add("alice", b.private_key("alice"))
    words = ("watch", "--once", "alice@example.org", "--keys", keys, *NOBODY)
    code, document = ran(monkeypatch, capsys, *words)
    assert (code, document["labels"]) == (7, ["alice@example.org"])
    assert document["error"]["kind"] == "cannot-tell"
    assert "127.0.0.1:1 does not answer" in document["error"]["problem"]


@pytest.mark.parametrize("label", ["", "no address", "alice@@example.org", "a\x00@example.org"])
def test_a_label_that_cannot_be_is_wrong_usage(label: str) -> None:
    directory = Directory()
    directory.put_user("alice")
    directory.advance()
    with pytest.raises(KtError, match="label: ") as found:
        client_of(directory).lookup(label)
    assert found.value.exit_code == 2
