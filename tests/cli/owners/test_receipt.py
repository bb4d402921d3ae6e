"""``kt put --receipt`` and ``kt receipt``, asking a real front end."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kt_es.cli.options import Reach
from kt_es.client.client import Client
from kt_es.client.state import FileStateStore
from kt_es.client.states import KeyStore
from kt_es.formats.receipts import ReceiptFile
from tests import builders as b
from tests.cli.owners.people import KEY, Ran, run_kt
from tests.reference.frontends import Front, front, until
from tests.reference.signed_streams import SignedStreams

BOB = b.label_of("bob")


class Owner:
    """bob at a terminal, with a key and a file to publish."""

    def __init__(self, running: Front, home: Path, capsys: Any, patch: pytest.MonkeyPatch) -> None:
        self.running = running
        self.home = home
        self.receipt = home / "receipt"
        self.file = home / "new.raw"
        self.file.write_bytes(b"new")
        KeyStore(home / "keys").add("default", KEY)
        self._capsys, self._patch = capsys, patch

        def handle(request: httpx.Request) -> httpx.Response:
            path = request.url.raw_path.decode()
            headers = {"content-type": "application/json"}
            answer = running.request(request.method, path, content=request.content, headers=headers)
            return httpx.Response(answer.status_code, content=answer.content)

        def now() -> int:
            return b.START + 1_000 * (running.ledger.committed.epoch + 1)

        def client(reach: Reach, *_: object, **__: object) -> Client:
            store = FileStateStore(reach.state / "directory")
            return Client("http://kt.test", store, transport=httpx.MockTransport(handle), now=now)

        patch.setattr(Reach, "client", client)

    def put(self, *words: str) -> Ran:
        keys = ["--keys", str(self.home / "keys"), "--type", "raw", "--yes"]
        return self._kt("put", BOB, "--key", str(self.file), *keys, *words)

    def submitted(self) -> Ran:
        return self.put("--receipt", str(self.receipt), "--no-wait")

    def asks(self, *words: str) -> Ran:
        return self._kt("receipt", str(self.receipt), *words)

    def _kt(self, *words: str) -> Ran:
        return run_kt(self._patch, self._capsys, *words, "--state", str(self.home / "state"))

    def publish(self) -> None:
        self.running.streams.epoch()
        until(self.running.caught_up)


@pytest.fixture
def owner(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Owner]:
    streams = SignedStreams()
    streams.put_user("alice")
    streams.epoch()
    with front(streams) as running:
        yield Owner(running, tmp_path, capsys, monkeypatch)


def test_from_the_queue_to_the_proof(owner: Owner) -> None:
    ran = owner.submitted()
    assert (ran.code, '"verdict": null' in ran.out) == (0, True)
    assert f"version 1 of {BOB} is submitted" in ran.err
    assert stat.S_IMODE(owner.receipt.stat().st_mode) == 0o600
    waits = owner.asks()
    assert (waits.code, '"state": "pending"' in waits.out) == (7, True)
    assert "waits in the queue, says the server: epoch 1 has not decided it" in waits.err
    owner.publish()
    done = owner.asks()
    assert done.code == 0, done.err
    assert f"version 1 of {BOB} was accepted in epoch 2: proven by record 3" in done.err
    assert '"accepted": true' in done.out
    # Nothing is sent twice, though it was asked for.
    end = owner.running.streams.log.last_revision(owner.running.streams.names.queue)
    assert owner.asks("--send-again").code == 0
    assert owner.running.streams.log.last_revision(owner.running.streams.names.queue) == end


def test_a_refusal_is_shown_with_its_reason(owner: Owner) -> None:
    owner.running.streams.put_user("bob")
    owner.submitted()
    owner.publish()
    for words in ((), ("--send-again",)):
        ran = owner.asks(*words)
        assert (ran.code, '"verdict": "conflict"' in ran.out) == (1, True)
        assert "was refused in epoch 2: proven by record 4" in ran.err
        assert "another change came first in the same epoch" in ran.err


def test_what_never_arrived_is_sent_again(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Client, "submit", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        assert owner.submitted().code == 1
    # The change was kept before it was sent.
    ran = owner.asks()
    assert (ran.code, '"state": "unknown"' in ran.out) == (7, True)
    assert "Submit it again with --send-again" in ran.err
    assert owner.asks("--send-again").code == 7
    owner.publish()
    assert owner.asks().code == 0


def test_a_change_that_is_waited_for_is_kept_too(owner: Owner) -> None:
    with owner.running.streams.signing():
        ran = owner.put("--receipt", str(owner.receipt))
    assert ran.code == 0, ran.err
    assert ReceiptFile.decode(owner.receipt.read_bytes()).label == BOB
    assert owner.asks().code == 0


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda path: path.write_bytes(KEY.to_pem()), "is no receipt"),
        (lambda path: path.mkdir(), "cannot be read"),
    ],
)
def test_no_other_file_is_overwritten(owner: Owner, prepare: Any, says: str) -> None:
    prepare(owner.receipt)
    ran = owner.submitted()
    assert ran.code == 2
    assert says in ran.err or "is a directory" in ran.err
    assert owner.running.streams.log.last_revision(owner.running.streams.names.queue) == 2


def test_an_earlier_receipt_is_replaced(owner: Owner) -> None:
    owner.submitted()
    owner.publish()
    owner.file.write_bytes(b"newer")
    assert owner.submitted().code == 0
    assert ReceiptFile.decode(owner.receipt.read_bytes()).mutation.entry.version == 2


def test_not_to_wait_needs_a_receipt(owner: Owner) -> None:
    ran = owner.put("--no-wait")
    assert (ran.code, "--no-wait needs --receipt FILE" in ran.err) == (2, True)


def test_a_receipt_of_another_directory_is_refused(owner: Owner) -> None:
    made = b.mutation("bob")
    kept = ReceiptFile(b.OTHER_ORIGIN, BOB, made, b.opening("bob"), b.profile("bob"))
    owner.receipt.write_bytes(kept.encode())
    ran = owner.asks()
    assert (ran.code, f"is a receipt of {b.OTHER_ORIGIN}" in ran.err) == (2, True)
