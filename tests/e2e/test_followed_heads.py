"""Heads as they are published, and what became of submissions, from real processes with workers."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kt_es.client.client import Client
from kt_es.client.state import FileStateStore
from kt_es.client.trusted import Pinned
from kt_es.crypto.signatures import PrivateKey
from tests.e2e.processes import KT, Up, account, running_up, until
from tests.e2e.test_workers import FAST, workers

pytestmark = pytest.mark.e2e

KEY = PrivateKey.from_seed(1, bytes(range(32)))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_up(tmp_path_factory.mktemp("followed") / "data", *FAST) as up:
        yield up


def client_of(url: str, up: Up, state: Path) -> Client:
    return Client(url, FileStateStore(state), pinned=Pinned.parse(up.vkey), timeout=60)


def test_every_head_through_workers_that_are_replaced(directory: Up, tmp_path: Path) -> None:
    """Replaced workers end their streams, and the clients go on where they were. In the end all stop."""
    found: list[list[int]] = [[], []]
    begun, replaced = threading.Barrier(3), threading.Event()

    def follow(number: int, url: str) -> None:
        client = client_of(url, directory, tmp_path / f"state{number}")
        with client, closing(client.following.heads()) as heads:
            found[number].append(next(heads).head.epoch)
            begun.wait(60)
            for head in heads:
                found[number].append(head.head.epoch)
                if replaced.is_set() and len(found[number]) >= 6:
                    return

    with workers(directory, tmp_path) as front:
        before = set(front.pids("worker"))
        threads = [threading.Thread(target=follow, args=(number, front.url)) for number in range(2)]
        for thread in threads:
            thread.start()
        begun.wait(60)
        front.process.send_signal(signal.SIGUSR1)
        until(lambda: len(now := set(front.pids("worker"))) == 2 and not now & before, "all are new")
        replaced.set()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
    for epochs in found:
        assert epochs == list(range(epochs[0], epochs[0] + len(epochs)))
        assert len(epochs) >= 6


def test_a_status_at_every_worker(directory: Up, tmp_path: Path) -> None:
    with workers(directory, tmp_path) as front:
        wanted = account("status")
        with client_of(front.url, directory, tmp_path / "owner") as client:
            submission = client.prepare(wanted.label, wanted.profile, [KEY])
            client.submit(submission, wait=20)
        for number in range(4):
            # Each has a connection of its own, so each worker gets some.
            with client_of(front.url, directory, tmp_path / f"other{number}") as client:
                status = client.status(submission)
                assert (status.verdict, status.took_effect) == ("accepted", True)


def test_kt_epochs_follows(directory: Up, tmp_path: Path) -> None:
    command = [KT, "--json", "epochs", "--follow", "--since", "0", "--server", directory.url]
    command += ["--vkey", directory.vkey, "--state", str(tmp_path / "state")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = list(itertools.islice(process.stdout, 4))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]
    assert process.returncode in (0, 1)
