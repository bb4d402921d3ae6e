"""What this machine can do at most, measured in the same run as what is compared with it."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from pathlib import Path

from kt_es.crypto.signatures import ED25519, PrivateKey, verify
from kt_es.ledger.verifiers import usable_processors

SECONDS = 1.0
_BATCH = 64
_SIZE = 150
"""Bytes of a message: about the first entry of an account."""
NODE_BYTES = 65
"""Bytes that are hashed for a node or a leaf of the map: a prefix and two hashes (DESIGN, section 3)."""
_HASHES = 1_000


class Ed25519Limit:
    """Verifies signatures and does nothing else, in one process for each usable processor."""

    def __init__(self) -> None:
        self._count = usable_processors()
        # A fork would copy the threads of gRPC in a state that nobody knows.
        spawned = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(self._count, mp_context=spawned)
        # The start of the processes is not measured.
        self.measure(0.0)

    def close(self) -> None:
        self._pool.shutdown()

    def measure(self, seconds: float = SECONDS) -> float:
        """Return the signatures/s of all processes together, over ``seconds``."""
        return sum(self._pool.map(_verified_per_second, [seconds] * self._count))


def _verified_per_second(seconds: float) -> float:
    key = PrivateKey.from_seed(ED25519, bytes(32))
    signed = [(message, key.sign(message)) for message in (bytes((at,)) * _SIZE for at in range(_BATCH))]
    began, count = time.perf_counter(), 0
    while True:
        for message, signature in signed:
            if not verify(ED25519, key.public, message, signature):
                raise AssertionError("a valid signature was refused")
        count += _BATCH
        taken = time.perf_counter() - began
        if taken >= seconds:
            return count / taken


def hashes_per_second(seconds: float = SECONDS) -> float:
    """Return how many SHA-256 hashes of the size of a node of the map one processor makes a second."""
    node, began, count = bytes(NODE_BYTES), time.perf_counter(), 0
    while True:
        for _ in range(_HASHES):
            sha256(node).digest()
        count += _HASHES
        taken = time.perf_counter() - began
        if taken >= seconds:
            return count / taken


def synced_bytes_per_second(directory: Path, block: int, seconds: float = SECONDS) -> float:
    """Return how many bytes a second a file in ``directory`` takes if each ``block`` of bytes is synced."""
    data, count = os.urandom(block), 0
    with tempfile.TemporaryFile(dir=directory) as file:
        began = time.perf_counter()
        while True:
            file.write(data)
            file.flush()
            os.fdatasync(file.fileno())
            count += block
            taken = time.perf_counter() - began
            if taken >= seconds:
                return count / taken
