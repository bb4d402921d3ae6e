"""Messages between processes that serve together."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from queue import Queue
from typing import Any

import pytest

from kt_es.errors import EquivocationError, KtError, RefusedError
from kt_es.process import channels
from kt_es.process.channels import Channel


class End:
    """One end, which notes what arrives."""

    def __init__(self, end: socket.socket) -> None:
        self.channel = Channel(end, "other")
        self.received: Queue[Any] = Queue()
        self.ended = threading.Event()
        self.started = False

    def start(self) -> End:
        self.started = True
        self.channel.start(self.received.put, self.ended.set)
        return self


@pytest.fixture
def ends() -> Iterator[tuple[End, End]]:
    one, other = map(End, socket.socketpair())
    yield one, other
    for end in (one, other):
        if not end.started:
            end.start()
        end.channel.close()
        assert end.ended.wait(30)


def test_messages_arrive_in_order_and_whole(ends: tuple[End, End]) -> None:
    one, other = (end.start() for end in ends)
    messages: list[object] = [None, (), "text", bytes(3 << 20), *range(100)]
    for message in messages:
        one.channel.send(message)
    assert [other.received.get(timeout=30) for _ in messages] == messages
    other.channel.send("back")
    assert one.received.get(timeout=30) == "back"


def test_both_ends_hear_of_the_end_once_after_the_last_message(ends: tuple[End, End]) -> None:
    one, other = (end.start() for end in ends)
    one.channel.send("last")
    one.channel.flush(30)
    one.channel.close()
    assert one.ended.wait(30)
    assert other.ended.wait(30)
    assert other.received.get(timeout=30) == "last"
    one.channel.send("too late")
    other.channel.send("too late")


def test_an_end_that_does_not_read_is_cut_off_and_holds_nobody_up(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "MAX_WAITING", 1 << 20)
    one, _ = ends
    one.start()
    for _ in range(200):
        one.channel.send(bytes(1 << 16))
    assert one.ended.wait(30)


@pytest.mark.parametrize(
    "error",
    [
        KtError("plain"),
        RefusedError("malformed", "is no JSON", "body"),
        EquivocationError("head", "there are two", b"evidence"),
    ],
)
def test_errors_arrive_with_all_they_know(ends: tuple[End, End], error: KtError) -> None:
    one, other = (end.start() for end in ends)
    one.channel.send(error)
    found = other.received.get(timeout=30)
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert found.__dict__ == error.__dict__
    assert found.exit_code == error.exit_code
