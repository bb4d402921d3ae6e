"""What the signer's subscription has brought and the signer has not taken is bounded by bytes."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator

import pytest

from kt_es.errors import UnavailableError
from kt_es.eventstore.streams import Event
from signer.service import INBOX_BYTES, inbox_of

PATIENCE = 30.0


class Endless:
    """A group that delivers events of one size for as long as they are taken."""

    def __init__(self, size: int) -> None:
        self.delivered = 0
        self._data = bytes(size)
        self._stopped = threading.Event()

    def __iter__(self) -> Iterator[Event]:
        while not self._stopped.is_set():
            yield Event("queue", self.delivered, "Item", self._data, uuid.uuid4())
            self.delivered += 1

    def ack(self, event: Event) -> None:
        """Nothing is acknowledged before the end of an epoch."""

    def stop(self) -> None:
        self._stopped.set()


@pytest.mark.parametrize("size", [0, 300, 100_000, 1 << 20, 16 << 20])
def test_the_inbox_is_full_by_bytes(size: int) -> None:
    group = Endless(size)
    with inbox_of(group) as inbox:
        deadline = time.monotonic() + PATIENCE
        while not inbox.full():
            assert time.monotonic() < deadline
        assert inbox.qsize() < INBOX_BYTES + size + 2048
        taken = [inbox.get(timeout=PATIENCE) for _ in range(5)]
        assert [event.revision for event in taken if isinstance(event, Event)] == [0, 1, 2, 3, 4]
    assert group.delivered * size <= INBOX_BYTES + 8 * size


class Broken(Endless):
    """A group whose client has a bug."""

    def __iter__(self) -> Iterator[Event]:
        raise ValueError("a bug")


def test_a_bug_of_the_client_ends_the_subscription_like_an_outage() -> None:
    with inbox_of(Broken(0)) as inbox:
        error = inbox.get(timeout=PATIENCE)
    assert isinstance(error, UnavailableError)
    assert "ValueError: a bug" in str(error)
