"""Publishing exactly once, exactly there, or not at all."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kt_es.errors import DivergenceError, UnavailableError, WrongRevisionError
from kt_es.eventstore.streams import EventLog, NewEvent, content_event
from signer.work import publish
from tests.reference.memory_log import MemoryLog


def events(*names: str) -> list[NewEvent]:
    return [content_event("s", "T", name.encode()) for name in names]


def standing(log: MemoryLog) -> list[bytes]:
    return [event.data for event in log.read("s")]


def test_events_are_appended_behind_what_stands() -> None:
    log = MemoryLog()
    publish(log, "s", 0, events("a", "b"))
    publish(log, "s", 2, events("c"))
    assert standing(log) == [b"a", b"b", b"c"]


def test_what_stands_already_is_not_written_again() -> None:
    log = MemoryLog()
    log.append("s", -1, [NewEvent("T", b"a", content_event("other", "T", b"a").id)])
    publish(log, "s", 0, events("a", "b", "c"))
    assert standing(log) == [b"a", b"b", b"c"]


def test_another_truth_stops_it_and_nothing_is_written() -> None:
    log = MemoryLog()
    publish(log, "s", 0, events("a", "x"))
    with pytest.raises(DivergenceError, match="revision 1"):
        publish(log, "s", 0, events("a", "b", "c"))
    assert standing(log) == [b"a", b"x"]


def test_a_stream_that_lost_events_stops_it() -> None:
    log = MemoryLog()
    publish(log, "s", 0, events("a"))
    with pytest.raises(DivergenceError, match="lost events"):
        publish(log, "s", 5, events("f"))
    assert standing(log) == [b"a"]


class InFlight:
    """A server that has an append under way, which it neither shows nor lets another take the place of."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    def append(self, stream: str, expected: int, events: Sequence[NewEvent]) -> None:
        del events
        raise WrongRevisionError(stream, expected)


@pytest.mark.parametrize("standing_before", [0, 2])
def test_an_append_still_under_way_is_no_loss(standing_before: int) -> None:
    log = MemoryLog()
    ours = events("a", "b", "c")
    if standing_before:
        publish(log, "s", 0, ours[:standing_before])
    under_way: EventLog = InFlight(log)  # type: ignore[assignment]
    with pytest.raises(UnavailableError, match="no event is there yet"):
        publish(under_way, "s", standing_before, ours[standing_before:])
    publish(log, "s", standing_before, ours[standing_before:])
    assert standing(log) == [b"a", b"b", b"c"]


@pytest.mark.parametrize("written", [True, False])
def test_a_lost_answer_is_mended_by_the_same_call(written: bool) -> None:
    log = MemoryLog()
    log.break_appends(written=written)
    with pytest.raises(UnavailableError):
        publish(log, "s", 0, events("a", "b"))
    publish(log, "s", 0, events("a", "b"))
    assert standing(log) == [b"a", b"b"]
