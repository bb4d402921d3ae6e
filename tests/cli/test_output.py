"""What reaches a terminal or a directory is harmless, and is what was proven."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from kt_es.cli import saving
from kt_es.cli.main import cli
from kt_es.cli.output import MAX_SHOWN, Output, harmless, shown
from kt_es.cli.saving import MANIFEST, save_profile
from kt_es.client.state import MemoryStateStore
from kt_es.errors import ConfigError, DiskFullError
from kt_es.formats.entries import ProfileKey
from kt_es.process.logs import redacted
from tests import builders as b
from tests.reference.clients import client_of
from tests.reference.directory import Directory


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("alice@example.org", "alice@example.org"),
        ("Zoë 名前 \N{GREEK SMALL LETTER ALPHA}", "Zoë 名前 \N{GREEK SMALL LETTER ALPHA}"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("a\x07b", r"a\x07b"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("a\x9b31mb", r"a\x9b31mb"),
        ("a\x7fb", r"a\x7fb"),
        ("\u202egro.elpmaxe", r"\u202egro.elpmaxe"),
        ("\u2066a\u2069\u200b\u200d\ufeff", r"\u2066a\u2069\u200b\u200d\ufeff"),
        ("a\u2028b\u2029c\u0085d", r"a\u2028b\u2029c\x85d"),
        ("\u3164\uffa0\u115f\u2800\ufe0f\U000e0100", r"\u3164\uffa0\u115f\u2800\ufe0f\U000e0100"),
        ("cl\udce9.pub", r"cl\udce9.pub"),
        ("\ue000", r"\ue000"),
    ],
)
def test_text_of_strangers_is_one_harmless_line(text: str, line: str) -> None:
    assert shown(text) == line
    assert shown(line) == line
    assert shown(line).isprintable()


def test_a_long_text_is_cut_visibly() -> None:
    line = shown("x" * (MAX_SHOWN + 5))
    assert line == "x" * MAX_SHOWN + "... (5 characters more)"


@pytest.mark.parametrize("way", ["ok", "fail", "note", "data", "json"])
def test_every_way_out_escapes(way: str, capsys: pytest.CaptureFixture[str]) -> None:
    bad = "\x1b]0;owned\x07\n\x9b"
    output = Output(json=way == "json")
    if way in ("data", "json"):
        output.data({"name": bad}, [bad])
    else:
        getattr(output, way)(bad)
    written = capsys.readouterr()
    text = written.out + written.err
    assert text.count("\n") == (3 if way == "json" else 1)
    assert all(character.isprintable() for character in text.replace("\n", ""))
    if way == "json":
        assert json.loads(written.out) == {"name": bad}


def test_log_lines_of_a_terminal_are_harmless_and_hold_no_password() -> None:
    event = {"event": "away", "stream": "\x1b[31m", "problem": "esdb://u:secret@host refused", "n": 3}
    assert harmless(None, "info", redacted(None, "info", event)) == {
        "event": "away",
        "stream": r"\x1b[31m",
        "problem": "esdb://u:***@host refused",
        "n": 3,
    }


CASES = Path(__file__).parents[1] / "cases"


def test_a_file_name_that_is_not_utf8_is_refused_with_a_hint(tmp_path: Path) -> None:
    keys = str(tmp_path / "keys")
    assert CliRunner().invoke(cli, ["keys", "generate", "--keys", keys]).exit_code == 0
    file = tmp_path / "cl\udce9.pub"
    file.write_bytes((CASES / "put-file-name-not-utf8" / "s9_escape.pub").read_bytes())
    ran = CliRunner().invoke(cli, ["put", "a@example.org", "--key", str(file), "--keys", keys])
    assert isinstance(ran.exception, ConfigError)
    assert "rename it" in str(ran.exception)


def keys(*types: str) -> list[ProfileKey]:
    return [ProfileKey("name", kind, kind.encode()) for kind in types]


def saved(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != MANIFEST}


def test_a_save_leaves_exactly_what_was_proven(tmp_path: Path) -> None:
    target = tmp_path / "alice"
    save_profile(target, keys("ssh", "age", "raw"))
    assert saved(target) == {"0.ssh": b"ssh", "1.age": b"age", "2.raw": b"raw"}
    save_profile(target, keys("age"))
    assert saved(target) == {"0.age": b"age"}
    save_profile(target, ())
    assert saved(target) == {}
    save_profile(target, keys("raw"))
    assert saved(target) == {"0.raw": b"raw"}
    assert [path.name for path in tmp_path.iterdir()] == ["alice"]


def test_files_that_no_save_wrote_are_never_removed(tmp_path: Path) -> None:
    target = tmp_path / "alice"
    save_profile(target, keys("ssh"))
    (target / "notes").write_text("mine")
    with pytest.raises(ConfigError, match=r"did not write, or not so \(notes\)"):
        save_profile(target, keys("age"))
    assert saved(target) == {"0.ssh": b"ssh", "notes": b"mine"}
    other = tmp_path / "other"
    other.mkdir()
    (other / "0.ssh").write_text("mine")
    with pytest.raises(ConfigError, match="did not write"):
        save_profile(other, keys("ssh"))
    assert saved(other) == {"0.ssh": b"mine"}


def test_a_link_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "alice").symlink_to(real)
    with pytest.raises(ConfigError, match="is not a directory"):
        save_profile(tmp_path / "alice", keys("ssh"))
    assert list(real.iterdir()) == []


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"[]",
        b'{"files": ["0.ssh"]}',
        b'{"files": {"../victim": ""}}',
        b'{"files": {"..": ""}}',
        b'{"files": {"": ""}}',
    ],
)
def test_a_manifest_that_somebody_changed_removes_nothing(tmp_path: Path, manifest: bytes) -> None:
    victim, target = tmp_path / "victim", tmp_path / "alice"
    victim.write_text("mine")
    save_profile(target, keys("ssh"))
    (target / MANIFEST).write_bytes(manifest)
    with pytest.raises(ConfigError, match="is damaged"):
        save_profile(target, keys("age"))
    assert victim.read_text() == "mine"


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    (tmp_path / "alice").mkdir()
    save_profile(tmp_path / "alice", keys("ssh"))
    assert saved(tmp_path / "alice") == {"0.ssh": b"ssh"}


def test_a_file_of_ones_own_under_a_saved_name_is_never_removed(tmp_path: Path) -> None:
    target = tmp_path / "alice"
    save_profile(target, keys("ssh"))
    (target / "0.ssh").write_text("mine")
    with pytest.raises(ConfigError, match="did not write"):
        save_profile(target, ())
    assert saved(target) == {"0.ssh": b"mine"}


def test_the_directory_that_one_is_in_can_be_saved_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    save_profile(Path(), keys("ssh"))
    assert saved(tmp_path / "here") == {"0.ssh": b"ssh"}


def test_a_failed_save_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "alice"
    save_profile(target, keys("ssh"))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "create_file", fail)
    with pytest.raises(DiskFullError, match="its disk is full"):
        save_profile(target, keys("age"))
    assert [path.name for path in tmp_path.iterdir()] == ["alice"]
    assert saved(target) == {"0.ssh": b"ssh"}


def test_a_proof_replaces_an_earlier_proof_and_nothing_else(tmp_path: Path) -> None:
    directory = Directory()
    directory.put_user("alice")
    directory.advance()
    proof = client_of(directory, MemoryStateStore()).lookup(b.label_of("alice")).proof
    target = tmp_path / "alice.proof"
    for _ in range(2):
        saving.save_proof(target, proof)
        assert target.read_bytes() == proof.encode()
    key = tmp_path / "key.pem"
    key.write_bytes(b"a signing key")
    with pytest.raises(ConfigError, match="is no saved proof"):
        saving.save_proof(key, proof)
    assert key.read_bytes() == b"a signing key"
    with pytest.raises(ConfigError, match="is not a directory"):
        saving.save_proof(tmp_path / "missing" / "alice.proof", proof)
    assert not (tmp_path / "missing").exists()
