"""An owner at a terminal: ``kt`` in this process, its client asking a directory of the tests."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from kt_es.cli.main import main
from kt_es.cli.options import Reach
from kt_es.client.client import Client
from kt_es.client.state import FileStateStore, MemoryStateStore, StateStore
from kt_es.client.states import KeyStore
from kt_es.crypto.signatures import PrivateKey
from kt_es.formats.entries import Mutation, ProfileKey
from tests import builders as b
from tests.reference.directory import Directory

ALICE = b.label_of("alice")
RITA = "rita@example.org"
CASES = Path(__file__).parents[2] / "cases" / "import-replaces-other-keys"
KEY = b.private_key("alice")
LAPTOP, PHONE, STRANGER = (b.private_key(name) for name in ("laptop", "phone", "stranger"))
PROFILE = [ProfileKey("laptop", "raw", b"new")]
Handler = Callable[[httpx.Request], httpx.Response]


def client_of(
    directory: Directory,
    store: StateStore | None = None,
    handler: Handler | None = None,
    timeout: float = 2.0,
) -> Client:
    return Client(
        "http://kt.test",
        store or MemoryStateStore(),
        transport=httpx.MockTransport(handler or directory.handle),
        now=lambda: directory.now,
        timeout=timeout,
    )


def standing(directory: Directory, user: str = "alice") -> Mutation:
    return directory.mutations[directory.entries[b.index(user)]]


def follow(directory: Directory, *keys: PrivateKey, signed_by: PrivateKey = KEY, user: str = "alice") -> None:
    """The next version of an account, with these authorized keys, in an epoch of its own."""
    made = b.next_mutation(user, standing(directory, user), keys=keys, signed_by=[signed_by])
    number = made.entry.version
    assert directory.put(made, b.opening(user, number), b.profile(user, number)).succeeded
    directory.advance()


def ids(*keys: PrivateKey) -> list[str]:
    return [b.public(key).id.hex() for key in keys]


@dataclass(frozen=True, slots=True)
class Ran:
    """Exit code and output of a run of ``kt``."""

    code: int
    out: str
    err: str


def run_kt(patch: pytest.MonkeyPatch, capsys: Any, *words: str) -> Ran:
    """Run ``kt --json`` with ``words`` in this process, to its end."""
    patch.setattr(sys, "argv", ["kt", "--json", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    return Ran(int(ended.value.code or 0), out, err)


class Kt:
    """``kt`` in this process, its client asking a directory of the tests."""

    def __init__(self, directory: Directory, home: Path, capsys: Any, patch: pytest.MonkeyPatch) -> None:
        self.handler: Handler = directory.handle
        self.home = home
        self.keys = KeyStore(home / "keys")
        self.file = home / "new.raw"
        self.file.write_bytes(b"new")
        self._lock = threading.Lock()
        self._capsys = capsys
        self._patch = patch

        def client(reach: Reach, *_: object, **__: object) -> Client:
            return client_of(directory, FileStateStore(reach.state / "directory"), self.handle)

        patch.setattr(Reach, "client", client)

    def handle(self, request: httpx.Request) -> httpx.Response:
        # An import asks from several threads, and the directory is of one.
        with self._lock:
            return self.handler(request)

    def __call__(self, command: str, *words: str) -> tuple[int, dict[str, Any], str]:
        """The exit code, the document and what stands on standard error."""
        options = ["--state", str(self.home / "state")]
        if command in ("put", "revoke", "erase", "import"):
            options += ["--keys", str(self.home / "keys")]
        if command == "put":
            options += ["--type", "raw"]
            if not {"--add", "--remove", "--key"} & set(words):
                options += ["--key", str(self.file)]
        return self._run(command, *options, *words)

    def with_config(self, command: str, *words: str) -> tuple[int, dict[str, Any], str]:
        """The same as an operator, with the ``kt.toml`` of the home."""
        options = ["--state", str(self.home / "state"), "--keys", str(self.home / "keys")]
        return self._run("-c", str(self.home / "kt.toml"), command, *options, *words)

    def _run(self, *words: str) -> tuple[int, dict[str, Any], str]:
        ran = run_kt(self._patch, self._capsys, *words)
        return ran.code, json.loads(ran.out or "{}"), ran.err
