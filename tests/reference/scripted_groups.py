"""A log whose persistent subscription misbehaves as real ones do: silent, doubled, out of order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

from kt_es.eventstore.streams import Event, GroupSubscription
from tests.reference.memory_log import MemoryLog

Delivery = Callable[[Iterator[Event]], Iterator[Event]]


class ScriptedLog:
    """``log``, but what its group delivers goes through ``delivery`` first. Everything else is its own."""

    def __init__(self, log: MemoryLog, delivery: Delivery) -> None:
        self._log = log
        self._delivery = delivery
        self.joined = 0
        self.acknowledged: list[int] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    def join_group(self, stream: str, group: str) -> GroupSubscription | None:
        place = self._log.join_group(stream, group)
        if place is None:
            return None
        self.joined += 1
        return _ScriptedPlace(self, place, self._delivery)


class _ScriptedPlace:
    def __init__(self, log: ScriptedLog, place: GroupSubscription, delivery: Delivery) -> None:
        self._log = log
        self._place = place
        self._delivery = delivery

    def __iter__(self) -> Iterator[Event]:
        return self._delivery(iter(self._place))

    def ack(self, event: Event) -> None:
        self._log.acknowledged.append(event.revision)
        self._place.ack(event)

    def stop(self) -> None:
        self._place.stop()


def doubled(events: Iterator[Event]) -> Iterator[Event]:
    """Every event comes twice, the second time late."""
    late: list[Event] = []
    for event in events:
        yield event
        late.append(event)
        if len(late) == 3:
            yield from late
            late = []


def shuffled(choose: random.Random) -> Delivery:
    """Events come in another order, and some not at all."""

    def deliver(events: Iterator[Event]) -> Iterator[Event]:
        for event in events:
            if choose.random() < 0.3:
                continue
            yield event
            if choose.random() < 0.3:
                yield event

    return deliver


def silent(events: Iterator[Event]) -> Iterator[Event]:
    """The first event comes, then nothing, as from a server that hangs."""
    for number, event in enumerate(events):
        if number == 0:
            yield event


def failing() -> Delivery:
    """The first subscription ends with an error that nobody has thought of; the later ones are good."""
    number = itertools.count()

    def deliver(events: Iterator[Event]) -> Iterator[Event]:
        if next(number) == 0:
            yield next(events)
            raise RuntimeError("of the client's own")
        yield from events

    return deliver
