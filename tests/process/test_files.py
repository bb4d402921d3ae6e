"""Files that are whole or not there, private ones, and passwords in addresses."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from kt_es.errors import ConfigError
from kt_es.process import log_filters
from kt_es.process.files import create_file, read_private, replace_file
from kt_es.process.log_filters import keep_secret, without_password

WRITERS: list[Callable[[Path, bytes], None]] = [replace_file, create_file]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("write", WRITERS)
def test_a_file_is_written_for_its_owner_alone(tmp_path: Path, write: Callable[[Path, bytes], None]) -> None:
    path = tmp_path / "new" / "key"
    write(path, b"secret")
    assert path.read_bytes() == b"secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert names(path.parent) == ["key"]


@pytest.mark.parametrize("write", WRITERS)
def test_a_planted_link_is_not_followed(tmp_path: Path, write: Callable[[Path, bytes], None]) -> None:
    victim, path = tmp_path / "victim", tmp_path / "key"
    victim.write_bytes(b"mine")
    path.symlink_to(victim)
    if write is create_file:
        with pytest.raises(FileExistsError):
            write(path, b"secret")
    else:
        write(path, b"secret")
        assert not path.is_symlink()
    assert victim.read_bytes() == b"mine"
    assert names(tmp_path) == ["key", "victim"]


def test_a_new_file_takes_nobodys_place(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError):
        create_file(path, b"new")
    assert (path.read_bytes(), names(tmp_path)) == (b"old", ["key"])


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("broken", ["fsync", "write"])
def test_a_failure_leaves_what_was_there(
    tmp_path: Path, write: Callable[[Path, bytes], None], broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key"
    if write is replace_file:
        path.write_bytes(b"old")
    before = names(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if broken == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OSError, match="No space left"):
        write(path, b"new")
    monkeypatch.undo()
    assert names(tmp_path) == before
    assert not before or path.read_bytes() == b"old"


def test_the_directory_is_synced_after_the_name_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            synced.append(",".join(names(tmp_path)))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    replace_file(tmp_path / "a", b"1")
    create_file(tmp_path / "b", b"2")
    assert synced == ["a", "a,b"]


def test_a_private_file_is_read(tmp_path: Path) -> None:
    create_file(tmp_path / "key", b"secret")
    assert read_private(tmp_path / "key", "the key", 6) == b"secret"


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o602, 0o601])
def test_a_file_that_is_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    create_file(path, b"secret")
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
        read_private(path, "the key", 100)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(ConfigError, match="is not a regular file"):
            read_private(tmp_path / name, "the key", 100)
    with pytest.raises(ConfigError, match=r"the key .*missing cannot be read: No such file"):
        read_private(tmp_path / "missing", "the key", 100)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    create_file(tmp_path / "key", b"secret")
    with pytest.raises(ConfigError, match="is larger than 5 bytes"):
        read_private(tmp_path / "key", "the key", 5)


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_filters, "_secrets", set())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("esdb://user:secret@host:1?Tls=false", "esdb://user:***@host:1?Tls=false"),
        ("no answer of https://u:se%40cret@host/x, it says", "no answer of https://u:***@host/x, it says"),
        ("esdb+discover://user:s@e:c@host", "esdb+discover://user:***@host"),
        ("esdb://u:p/a?s#s@host", "esdb://u:***@host"),
        ("http://user@host", "http://user@host"),
        ("http://host/a@b:c", "http://host/a@b:c"),
        ("two: kdb://a:b@c and kurrentdb://d:e@f", "two: kdb://a:***@c and kurrentdb://d:***@f"),
        ("nothing", "nothing"),
    ],
)
def test_passwords_are_taken_out_of_addresses(text: str, shown: str) -> None:
    assert without_password(text) == shown
    assert without_password(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "Port could not be cast to integer value as 'pa ss/@rd'",
        "login of user:pa ss/@rd failed",
        "GET /?next=esdb%3A%2F%2Fu%3Apa%20ss%2F%40rd%40host",
        "esdb://user:pa%20ss%2F%40rd@host",
    ],
)
def test_a_password_of_this_process_is_found_however_it_is_quoted(text: str) -> None:
    keep_secret("esdb://user:pa%20ss%2F%40rd@host:2113?Tls=false")
    shown = without_password(text)
    assert "rd" not in shown
    assert "***" in shown


def test_a_password_that_is_a_part_of_another_leaves_nothing_of_it() -> None:
    for password in ("abcd1234", "abcd1234/longer", "x-abcd1234"):
        keep_secret(f"esdb://user:{quote(password, safe='')}@host:2113")
    for password in ("abcd1234", "abcd1234/longer", "x-abcd1234"):
        assert without_password(f"it was {password}") == "it was ***"


def test_an_address_without_a_password_hides_nothing() -> None:
    for address in ("esdb://user@host", "esdb://host:1", "user:p@host", "esdb://u:@host"):
        keep_secret(address)
    assert without_password("user host p") == "user host p"
