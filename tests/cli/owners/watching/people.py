"""Owners, their changes, and what they run."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from kt_es.cli.options import Reach
from kt_es.cli.owners import watch as watch_module
from kt_es.client.changes import Mine
from kt_es.client.client import Client
from kt_es.client.state import FileStateStore
from kt_es.client.states import KeyStore
from kt_es.crypto.signatures import PrivateKey
from tests import builders as b
from tests.cli.owners.people import Ran, client_of, follow, run_kt
from tests.reference.clients import Handler
from tests.reference.directory import Directory

ALICE, BOB, CAROL = (b.label_of(name) for name in ("alice", "bob", "carol"))
ALICE_KEY = b.private_key("alice")
PHONE = b.private_key("phone")
STRANGER = b.private_key("stranger")


def mine_of(*keys: PrivateKey) -> Mine:
    return Mine(frozenset(b.public(key) for key in keys))


def injected(directory: Directory, user: str = "alice") -> None:
    """A version that a stranger's key and the owner's signed, as a thief of the owner's key would."""
    key = b.private_key(user)
    follow(directory, key, STRANGER, signed_by=key, user=user)


class WatchingKt:
    """``kt`` in this process, with a watch that ``stop`` ends instead of a signal."""

    def __init__(self, directory: Directory, home: Path, capsys: Any, patch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.handler: Handler = directory.handle
        self.home = home
        self.stop = threading.Event()
        self._capsys = capsys
        self._patch = patch
        KeyStore(home / "keys").add("default", ALICE_KEY)

        def client(reach: Reach, connections: int = 32, timeout: float = 1.0) -> Client:
            del connections
            store = FileStateStore(reach.state / "directory")
            return client_of(directory, store, self.handle, min(timeout, 1.0))

        patch.setattr(Reach, "client", client)
        patch.setattr(watch_module, "stop_on_signals", lambda: self.stop)

    def handle(self, request: httpx.Request) -> httpx.Response:
        return self.handler(request)

    def __call__(self, *words: str) -> Ran:
        command, *rest = words
        options = ["--keys", str(self.home / "keys"), "--state", str(self.home / "state")]
        return run_kt(self._patch, self._capsys, command, *options, *rest)


class Webhook:
    """A real server on a free port of the loopback."""

    def __init__(self, status: int) -> None:
        received: list[dict[str, Any]] = []

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                received.append(json.loads(self.rfile.read(length)))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self.received = received
        self.server = HTTPServer(("127.0.0.1", 0), Receiver)
        self.url = f"http://127.0.0.1:{self.server.server_port}/secret-token"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()
