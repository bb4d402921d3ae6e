"""A witness is killed at any moment, while two forks of many logs are sent to it: it cosigns one of each."""

from __future__ import annotations

import random
import signal
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from kt_es.formats.cosignatures import CosignerKey, read_cosigned
from kt_es.formats.heads import Checkpoint
from kt_es.formats.notes import sign_note, verifier_key
from kt_es.formats.witnessing import AddCheckpoint
from tests.builders import private_key
from tests.e2e.processes import Running, Stranger
from tests.reference import naive_log
from tests.witness.test_judging import leaves

pytestmark = pytest.mark.e2e
KEY = private_key("log")
LOGS = [f"log.example.org/{number}" for number in range(40)]
FORKS = (0, 1)
KILLS = 5
SIZE = 6


def sent(origin: str, fork: int, old: int) -> AddCheckpoint:
    """A checkpoint of a log, whose forks have the same size and another root."""
    text = Checkpoint(origin, SIZE, naive_log.root(leaves(SIZE, fork))).encode()
    return AddCheckpoint(old, (), sign_note(text, origin, KEY))


class Asking:
    """Asks from several threads, and gathers the forks that were cosigned of each log.

    After ``enough`` answers it kills the witness.
    """

    def __init__(self, process: Running, key: CosignerKey, found: dict[str, set[int]], enough: int) -> None:
        self._process = process
        self._key = key
        self._found = found
        self._left = enough
        self._lock = threading.Lock()

    def ask(self, client: httpx.Client, origin: str, fork: int, old: int) -> None:
        request = sent(origin, fork, old)
        try:
            answer = client.post("/add-checkpoint", content=request.encode())
        except httpx.TransportError:
            # It was killed.
            return
        cosigned = answer.status_code == 200
        if cosigned:
            assert self._key in read_cosigned(request.note.encode() + answer.content, [self._key]).cosigners
        else:
            assert answer.status_code == 409, answer.text
        with self._lock:
            if cosigned:
                self._found[origin].add(fork)
            self._left -= 1
            if not self._left:
                self._process.process.kill()


def test_a_killed_witness_never_cosigns_two_forks(tmp_path: Path) -> None:
    folder = tmp_path / "witness"
    someone = Stranger(tmp_path / "home")
    shown = someone.kt("witness", "--data", folder, "--name", "witness.example.org/w1", "--show-key")
    key = CosignerKey.parse(shown.out.strip())
    known = [word for origin in LOGS for word in ("--log", verifier_key(origin, KEY.public).encode())]
    chance = random.Random(1)
    found: dict[str, set[int]] = defaultdict(set)
    for kill in range(KILLS + 1):
        words: tuple[str | Path, ...] = ("witness", "--data", folder, "--listen", "127.0.0.1:0", *known)
        process = Running(tmp_path / f"witness{kill}.log", *words)
        try:
            line = process.wait_for_line('"serving"')
            url = line.partition('"url": "')[2].partition('"')[0]
            asked = [(origin, fork, old) for origin in LOGS for fork in FORKS for old in (0, SIZE)]
            chance.shuffle(asked)
            asking = Asking(process, key, found, chance.randint(5, 60) if kill < KILLS else -1)
            with httpx.Client(base_url=url, trust_env=False) as client, ThreadPoolExecutor(8) as pool:
                for asked_now in [pool.submit(asking.ask, client, *each) for each in asked]:
                    asked_now.result()
                # What was durable when it was killed, and not answered, is answered now.
                for origin in LOGS:
                    for fork in FORKS:
                        asking.ask(client, origin, fork, SIZE)
            if kill == KILLS:
                assert process.stop(signal.SIGTERM) == 0, process.spoken
        finally:
            process.stop(signal.SIGKILL)
        assert "Traceback" not in process.spoken
    assert {origin: len(forks) for origin, forks in found.items()} == dict.fromkeys(LOGS, 1)
    # Both forks were the first one somewhere, so there was something to confuse.
    assert {fork for forks in found.values() for fork in forks} == set(FORKS)
