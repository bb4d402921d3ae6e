"""A failure on a stranger's machine ends with one clear line and the exit code of its kind."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from kt_es.client.trusted import Pinned
from kt_es.process.files import replace_file
from tests.builders import private_key, public
from tests.e2e.processes import KT, Running, Stranger, Up

pytestmark = pytest.mark.e2e

# Nothing listens on this one: it is reserved.
NOWHERE = "127.0.0.1:1"
AWAY = f"esdb://{NOWHERE}?Tls=false"


@pytest.fixture
def alone(tmp_path: Path) -> Stranger:
    """Somebody without any directory."""
    return Stranger(tmp_path / "home")


@pytest.fixture
def copy(directory: Up, tmp_path: Path) -> Path:
    """Settings and keys of the running directory in a place of their own, without any data."""
    base = tmp_path / "copy"
    for path in ("kt.toml", "keys/vrf.pem", "keys/signer/signer.pem"):
        (base / path).parent.mkdir(parents=True, exist_ok=True)
        replace_file(base / path, (directory.data / path).read_bytes())
    return base


@pytest.mark.parametrize(
    ("redirected", "code", "said"),
    [
        ("> /dev/full", 7, "✗ standard output cannot be written: its disk is full"),
        (">&-", 2, "✗ standard output is closed, so nothing can be printed"),
        ("2>&-", 0, ""),
    ],
)
def test_what_cannot_be_printed_is_reported(alone: Stranger, redirected: str, code: int, said: str) -> None:
    alone.kt("keys", "generate")
    done = subprocess.run(
        ["sh", "-c", f"{KT} keys list {redirected}"],
        env=alone.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr[: len(said)]) == (code, said)
    assert len(done.stderr.splitlines()) <= 1


@pytest.mark.parametrize("name", ["76dd865af674440e", "76DD865AF674440E"])
def test_a_key_cannot_be_called_like_another_ones_id(alone: Stranger, name: str) -> None:
    ran = alone.kt("keys", "generate", name, code=2)
    assert ran.complaint == f"{name} has the form of a key id and cannot name a key; choose another name"
    assert not list(alone.home.rglob("*.pem"))


@pytest.mark.parametrize("command", ["get", "history"])
def test_a_server_that_is_away_is_one_line(alone: Stranger, command: str) -> None:
    away = ("--server", f"http://{NOWHERE}", "--timeout", "1")
    ran = alone.kt(command, "alice@example.org", *away, code=7)
    assert f"http://{NOWHERE}" in ran.complaint


@pytest.mark.parametrize(
    ("server", "code"), [("localhost:8080", 2), ("ftp://localhost", 2), ("http://[", 2), ("http://", 2)]
)
def test_a_server_that_is_no_address_is_a_usage_error(alone: Stranger, server: str, code: int) -> None:
    assert "address" in alone.kt("get", "alice@example.org", "--server", server, code=code).complaint


def test_a_certificate_that_is_none_is_named(alone: Stranger) -> None:
    authority = alone.home / "ca.pem"
    authority.write_text("no certificate")
    ran = alone.kt("get", "a@example.org", "--server", "https://localhost", "--ca", authority, code=2)
    assert str(authority) in ran.complaint
    assert "does not exist" in alone.kt("get", "a@example.org", "--ca", alone.home / "none", code=2).err


def test_settings_that_are_missing_or_wrong_are_named(alone: Stranger) -> None:
    assert "kt.toml: No such file" in alone.kt("signer", code=2).complaint
    settings = alone.home / "kt.toml"
    for text, named in (
        ("directory = ", "kt.toml: "),
        ("\udcff", "kt.toml: "),
        ('directory = "people"', "origin"),
        ('directory = "PEOPLE"\norigin = "a.example"\nkey = "x"', "directory"),
        ('directory = "people"\norigin = "a.example"\nkey = "x"', "key"),
        ("surplus = 1", "kt.toml: "),
    ):
        settings.write_bytes(text.encode("utf-8", "surrogateescape"))
        assert named in alone.kt("monitor", code=2).complaint


def test_a_connection_string_that_is_none_is_named(directory: Up, stranger: Stranger, copy: Path) -> None:
    for command in (("signer",), ("monitor",), ("frontend", "--listen", "127.0.0.1:0"), ("status",)):
        ran = stranger.kt("-c", copy / "kt.toml", *command, "--log", "http://localhost", code=2)
        assert ran.complaint.startswith("connection string: "), command
    for uri in ("esdb://", "esdb://localhost:port", "esdb://user@localhost:1?Tls=maybe"):
        ran = stranger.kt("-c", copy / "kt.toml", "status", "--log", uri, code=2)
        assert ran.complaint.startswith("connection string: "), uri


@pytest.mark.parametrize("command", [("status", "--server", f"http://{NOWHERE}"), ("audit",)])
def test_a_log_that_is_away_is_one_line(stranger: Stranger, copy: Path, command: tuple[str, ...]) -> None:
    ran = stranger.kt("-c", copy / "kt.toml", *command, "--log", AWAY, "--patience", "0", code=7)
    assert "the event log is unavailable" in ran.complaint


def test_the_status_without_the_log_is_that_of_who_answers(stranger: Stranger, copy: Path) -> None:
    status = ("--json", "-c", copy / "kt.toml", "status", "--log", AWAY, "--patience", "0")
    document = stranger.kt(*status, code=7).document
    # The figures are read first, and epochs go on.
    assert document["head"]["epoch"] >= document["frontend"]["epoch"]
    assert document["head_verified"]
    assert document["queue_waiting"] is None
    assert "the event log is unavailable" in document["unknown"]["log"]


def test_the_status_does_not_take_another_directory_for_its_own(
    directory: Up, stranger: Stranger, copy: Path
) -> None:
    key = Pinned("localhost/people", public(private_key("somebody else"))).vkey
    (copy / "kt.toml").write_text((copy / "kt.toml").read_text().replace(directory.vkey, key))
    status = ("-c", copy / "kt.toml", "status", "--log", directory.log_uri)
    alone = Stranger(stranger.home / "alone", KT_SERVER=directory.url)
    ran = alone.kt("--json", *status, code=4)
    assert ran.document["frontend"] is None
    assert "the pinned key" in ran.document["unknown"]["frontend"]
    assert not ran.document["head_verified"]


def test_init_without_its_log_reports_it_and_goes_on_when_repeated(directory: Up, stranger: Stranger) -> None:
    data = stranger.home / "new"
    at_once = ("--patience", "0")
    ran = stranger.kt("-q", "init", "--data", data, "--log", AWAY, *at_once, code=7)
    assert "the event log is unavailable" in ran.complaint
    key = (data / "keys/signer/signer.pem").read_bytes()
    assert stranger.kt("-q", "init", "--data", data, *at_once, code=7).complaint
    assert (data / "keys/signer/signer.pem").read_bytes() == key
    settings = (data / "kt.toml").read_text().replace(AWAY, directory.log_uri)
    (data / "kt.toml").write_text(settings.replace('directory = "people"', 'directory = "others"'))
    made = stranger.kt("--json", "init", "--data", data)
    assert "began the queue kt_queue-others" in made.err
    assert "found the queue kt_queue-others" in stranger.kt("init", "--data", data).err
    assert made.document["key"] in settings


def test_init_refuses_a_queue_of_somebody_else(directory: Up, stranger: Stranger) -> None:
    ran = stranger.kt("-q", "init", "--data", stranger.home / "new", "--log", directory.log_uri, code=2)
    assert "does not begin with the config of localhost/people under this key" in ran.complaint


@pytest.mark.parametrize(
    "options", [("--directory", "Not Allowed"), ("--origin", "https://kt.example"), ("--origin", "")]
)
def test_init_refuses_names_that_cannot_be(alone: Stranger, options: tuple[str, str]) -> None:
    data = alone.home / "new"
    assert alone.kt("init", "--data", data, *options, code=2).complaint
    assert not data.exists()


@pytest.mark.parametrize(
    "content", [None, b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_signer_key_that_cannot_be_used_is_named(
    directory: Up, stranger: Stranger, copy: Path, content: bytes | None
) -> None:
    path = copy / "keys/signer/signer.pem"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    ran = stranger.kt("-c", copy / "kt.toml", "signer", "--log", directory.log_uri, code=2)
    assert str(path.parent) in ran.complaint


@pytest.mark.parametrize("content", [None, b"", b"junk"])
def test_a_vrf_key_that_cannot_be_used_is_named(
    directory: Up, stranger: Stranger, copy: Path, content: bytes | None
) -> None:
    path = copy / "keys/vrf.pem"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    ran = stranger.kt(
        *("-c", copy / "kt.toml", "frontend", "--log", directory.log_uri, "--listen", "127.0.0.1:0"), code=2
    )
    assert str(path) in ran.complaint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_key_that_may_not_be_read_is_named(directory: Up, stranger: Stranger, copy: Path) -> None:
    path = copy / "keys/signer/signer.pem"
    path.chmod(0)
    ran = stranger.kt("-c", copy / "kt.toml", "signer", "--log", directory.log_uri, code=2)
    assert f"{path} cannot be read: Permission denied" in ran.complaint


def test_a_key_that_is_a_directory_is_named(directory: Up, stranger: Stranger, copy: Path) -> None:
    path = copy / "keys/signer/signer.pem"
    path.unlink()
    path.mkdir()
    ran = stranger.kt("-c", copy / "kt.toml", "signer", "--log", directory.log_uri, code=2)
    assert f"{path} is not a regular file" in ran.complaint


def test_a_users_key_that_others_can_read_is_refused(stranger: Stranger) -> None:
    stranger.kt("keys", "generate")
    path = next((stranger.home / "data/kt-es/keys").glob("*.pem"))
    path.chmod(0o644)
    assert f"chmod 600 {path}" in stranger.kt("keys", "list", code=2).complaint
    path.write_text("no key")
    path.chmod(0o600)
    assert str(path) in stranger.kt("keys", "list", code=2).complaint


def test_put_without_a_signing_key_explains_how_to_make_one(stranger: Stranger) -> None:
    file = stranger.home / "raw"
    file.write_bytes(b"key")
    put = ("put", "a@example.org", "--key", file, "--type", "raw")
    assert "kt keys generate" in stranger.kt(*put, code=2).complaint


@pytest.mark.parametrize("part", ["node", "signer", "frontend", "monitor"])
def test_a_data_directory_that_is_a_file_is_named(
    directory: Up, stranger: Stranger, copy: Path, part: str
) -> None:
    path = copy / part
    path.write_text("in the way")
    where: tuple[str | Path, ...] = ("--log", directory.log_uri)
    if part == "node":
        where = ("--data", path, "--listen", "127.0.0.1:0")
    elif part == "frontend":
        where = (*where, "--listen", "127.0.0.1:0")
    ran = stranger.kt("-c", copy / "kt.toml", part, *where, code=2)
    assert str(path) in ran.err
    assert path.read_text() == "in the way"
    assert "file" in stranger.kt("up", "--data", path, code=2).err


@pytest.mark.parametrize("where", ["nonsense", "127.0.0.1", "127.0.0.1:65536", ":80", "127.0.0.1:-1"])
def test_an_address_that_is_none_is_refused(alone: Stranger, where: str) -> None:
    data = alone.home / "node"
    assert "HOST:PORT" in alone.kt("node", "--data", data, "--listen", where, code=2).complaint
    assert not data.exists()


def test_a_process_whose_log_is_away_waits_for_it(stranger: Stranger, copy: Path) -> None:
    for part in ("signer", "monitor"):
        running = Running(copy.parent / f"{part}.log", "-c", copy / "kt.toml", part, "--log", AWAY)
        try:
            running.wait_for_line("the event log cannot be reached")
        finally:
            assert running.stop() == 0
        assert "Traceback" not in running.spoken
