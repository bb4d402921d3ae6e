"""Events are read some time before they are decided: their order, how many, and an error among them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from kt_es.errors import UnavailableError
from kt_es.eventstore.streams import Event
from kt_es.formats.queue import RECORDS
from kt_es.ledger.ahead import AHEAD, MORE, WINDOW, Ahead

SIZE = 100_000


class Source:
    """A stream of ``count`` events, which notes how many of them were read."""

    def __init__(self, count: int, failure: Exception | None = None) -> None:
        self.count = count
        self.failure = failure
        self.read = 0

    def __iter__(self) -> Iterator[Event]:
        for number in range(self.count):
            self.read += 1
            yield Event("stream", number, RECORDS, bytes(SIZE), uuid.UUID(int=number))
        if self.failure is not None:
            raise self.failure


def test_events_come_in_order_and_each_is_offered_once_before_it_comes() -> None:
    offered: list[int] = []
    ahead = Ahead(Source(60), lambda event: offered.append(event.revision))
    for number, event in enumerate(ahead):
        assert event.revision == number < len(offered)
        ahead.read_on()
    assert offered == list(range(60))


def test_no_more_than_a_window_is_read_before_the_first_decision() -> None:
    source = Source(400)
    ahead = Ahead(source, lambda _: None)
    for decided, _ in enumerate(ahead, 1):
        assert (source.read - decided) * SIZE <= WINDOW
        assert source.read == source.count or (source.read - decided + 1) * SIZE > WINDOW


def test_a_decision_that_takes_long_has_more_read_up_to_a_bound() -> None:
    source = Source(1_000)
    ahead = Ahead(source, lambda _: None)
    next(ahead)
    waiting = []
    for _ in range(2 * AHEAD // MORE):
        ahead.read_on()
        waiting.append((source.read - 1) * SIZE)
    assert WINDOW < waiting[0] <= WINDOW + MORE + 2 * SIZE
    assert AHEAD - MORE <= waiting[-1] == waiting[-2] <= AHEAD
    assert [event.revision for event in ahead] == list(range(1, 1_000))


@pytest.mark.parametrize("on", [0, 3], ids=["read when its turn comes", "read before"])
def test_an_error_comes_after_the_events_before_it(on: int) -> None:
    ahead = Ahead(Source(30, UnavailableError("the log went away")), lambda _: None)
    next(ahead)
    for _ in range(on):
        ahead.read_on()
    for number in range(1, 30):
        assert next(ahead).revision == number
    with pytest.raises(UnavailableError, match="went away"):
        next(ahead)
    assert list(ahead) == []
