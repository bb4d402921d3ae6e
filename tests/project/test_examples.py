"""The programs of examples/, run against a real front end."""

from __future__ import annotations

import ast
import importlib.util
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from kt_es.client.client import Client
from kt_es.client.state import MemoryStateStore
from kt_es.client.trusted import Pinned
from kt_es.crypto.signatures import PrivateKey
from kt_es.formats.entries import ProfileKey, PublicKey
from kt_es.server.limits import DEFAULT_LIMITS
from tests import builders as b
from tests.reference.doors import door
from tests.reference.frontends import front
from tests.reference.signed_streams import SignedStreams

FOLDER = Path(__file__).parents[2] / "examples"
PINNED = Pinned(b.ORIGIN, b.SIGNER_KEY)
STRANGER = Pinned(b.ORIGIN, b.public(b.private_key("stranger")))
ALICE, BOB = b.label_of("alice"), b.label_of("bob")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a front end whose directory has alice, and a signer behind it."""
    # The directory of the tests lives in 2024, and so does the clock of the library.
    clock = SimpleNamespace(time_ns=lambda: (b.START + 1_000) * 1_000_000, monotonic=time.monotonic)
    monkeypatch.setattr("kt_es.process.clock.time", clock)
    streams = SignedStreams()
    streams.put_user("alice")
    streams.epoch()
    with (
        front(streams) as running,
        streams.signing(),
        door(running.running.app, DEFAULT_LIMITS) as listening,
    ):
        yield f"http://127.0.0.1:{listening.port}"


def program(name: str) -> Callable[[list[str]], int]:
    """The `main` of an example, in this process, where the clock can be set."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: Callable[[list[str]], int] = module.main
    return main


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """An example as a process of its own."""
    command = [sys.executable, str(FOLDER / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def lines_of(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_look_up(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main, state = program("look_up"), ["--state", str(tmp_path / "state")]
    assert main([server, PINNED.vkey, ALICE, *state]) == 0
    assert lines_of(capsys) == "raw laptop (7 bytes)\n"
    assert main([server, PINNED.vkey, BOB, *state]) == 3
    assert lines_of(capsys) == f"{BOB}: proven absent in epoch 1\n"
    assert main([server, STRANGER.vkey, ALICE, "--state", str(tmp_path / "other")]) == 4


def test_verify_offline(server: str, tmp_path: Path) -> None:
    file = tmp_path / "alice.proof"
    arguments = [server, PINNED.vkey, ALICE, "--state", str(tmp_path / "state"), "--save", str(file)]
    assert program("look_up")(arguments) == 0
    done = run("verify_offline", file, PINNED.vkey)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{ALICE} as of 2024-01-01T00:00:01+00:00, epoch 1 of {b.ORIGIN}",
        "raw laptop (7 bytes)",
    ]
    assert run("verify_offline", file, STRANGER.vkey).returncode == 4
    damaged = file.read_bytes().replace(b"alice 1", b"alice 2")
    file.write_bytes(damaged)
    done = run("verify_offline", file, PINNED.vkey)
    assert (done.returncode, done.stdout) == (4, "")
    assert "commitment" in done.stderr


def test_watch_account(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main, key_file = program("watch_account"), tmp_path / "key.pem"
    for owner, code, said in (
        ("alice", 0, f"{ALICE}: nothing foreign up to epoch 1\n"),
        ("stranger", 6, f"ALARM: version 1 of {ALICE} in epoch 1 is not yours\n"),
    ):
        key_file.write_bytes(b.private_key(owner).to_pem())
        state = ["--state", str(tmp_path / owner)]
        for _ in range(2):
            assert main([server, PINNED.vkey, ALICE, str(key_file), *state]) == code
            assert lines_of(capsys) == said


def test_submit_over_http(server: str, tmp_path: Path) -> None:
    key_file = tmp_path / "new.pem"
    done = run("submit_over_http", server, PINNED.vkey, BOB, key_file, "phone", "hello")
    assert (done.stdout, done.stderr) == (f"{BOB}: accepted in epoch 2\n", "")
    key = PrivateKey.from_pem(key_file.read_bytes())
    assert key_file.stat().st_mode & 0o777 == 0o600
    with Client(server, MemoryStateStore(), pinned=PINNED) as client:
        found = client.lookup(BOB)
        assert found.profile == (ProfileKey("phone", "raw", b"hello"),)
        assert found.entry is not None
        assert found.entry.authorized_keys == (PublicKey(key.algorithm, key.public),)
        # The key that the example made may change the account with the library.
        assert client.publish(BOB, [ProfileKey("phone", "raw", b"again")], [key]).stands


@pytest.mark.parametrize(
    ("vkey", "label", "problem"),
    [
        (PINNED.vkey, ALICE, f"{ALICE} has an entry already"),
        (STRANGER.vkey, BOB, "the directory shows no config that its key signed"),
        (PINNED.vkey, "Bob@example.org", "only plain labels"),
        (PINNED.vkey[:-8] + "AAAAAAA=", BOB, "is no Ed25519 verifier key"),
        (b.ORIGIN, BOB, "is no Ed25519 verifier key"),
    ],
)
def test_submit_over_http_refuses(server: str, tmp_path: Path, vkey: str, label: str, problem: str) -> None:
    done = run("submit_over_http", server, vkey, label, tmp_path / "new.pem", "phone", "hello")
    assert done.returncode == 1
    assert problem in done.stderr
    assert not (tmp_path / "new.pem").exists()


def test_submit_over_http_to_a_server_that_is_not_there(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # it does not listen, so nobody can connect
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        done = run("submit_over_http", address, PINNED.vkey, BOB, tmp_path / "new.pem", "phone", "hello")
    assert done.returncode == 1
    assert done.stderr.startswith(f"{address}: ")


def test_the_http_example_needs_only_what_it_declares() -> None:
    tree = ast.parse((FOLDER / "submit_over_http.py").read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    others = {name.split(".")[0] for name in names} - sys.stdlib_module_names
    assert others == {"cbor2", "nacl"}


def test_the_readme_has_every_example() -> None:
    named = set(re.findall(r"\(([a-z_]+\.py)\)", (FOLDER / "README.md").read_text()))
    assert named == {path.name for path in FOLDER.glob("*.py")}
