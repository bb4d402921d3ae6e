"""The thread that follows the openings waits out outages, with the shortest pause after each event."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kt_es.errors import AccessDeniedError, KtError, UnavailableError
from kt_es.eventstore.streams import ANY, Event, content_event
from kt_es.formats.entries import OPENING
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.openings import OpeningTable
from kt_es.ledger.tables import FAMILIES
from kt_es.process.outage import Backoff
from projections import follower as module
from projections.follower import OpeningsFollower
from tests.builders import index, opening_event
from tests.reference.memory_log import MemoryLog
from tests.reference.signing import NAMES

PATIENCE = 30.0


class Breaking:
    """A log whose subscriptions break after each event, or at once if ``events`` are not delivered."""

    def __init__(self, error: KtError, *, delivers: bool) -> None:
        stream = NAMES.openings(index("alice"))
        log = MemoryLog()
        log.append(stream, ANY, [content_event(stream, OPENING, opening_event("alice").encode())])
        self.closed = 0
        self._events = list(log.read(stream)) if delivers else []
        self._error = error

    def subscribe_prefix(self, _prefix: str, _after: int | None) -> Breaking:
        return self

    def __iter__(self) -> Iterator[Event]:
        yield from self._events
        raise self._error

    def stop(self) -> None:
        """Nothing is left to end."""

    def close(self) -> None:
        self.closed += 1


def pauses_of(
    log: Breaking, count: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[float], KtError | None]:
    """Follow ``log`` for ``count`` attempts; return the pauses, and the right that was missing at the end."""
    pauses: list[float] = []

    class Noted(Backoff):
        def pause(self) -> float:
            pauses.append(super().pause())
            if len(pauses) == count:
                follower.worker.stop()
            return 0.0

    monkeypatch.setattr(module, "Backoff", Noted)
    failures: list[KtError] = []
    table = OpeningTable(MemoryStore(FAMILIES))
    follower = OpeningsFollower(lambda: log, NAMES, table, failures.append)  # type: ignore[arg-type,return-value]
    follower.worker.start()
    assert follower.worker.join(PATIENCE)
    assert failures == []
    assert log.closed == count
    return pauses, follower.denied


def test_pauses_grow_while_nothing_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Breaking(UnavailableError("gone"), delivers=False)
    assert pauses_of(log, 3, monkeypatch) == ([0.2, 0.4, 0.8], None)


def test_an_event_brings_back_the_shortest_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Breaking(UnavailableError("gone"), delivers=True)
    assert pauses_of(log, 3, monkeypatch) == ([0.2, 0.2, 0.2], None)


def test_a_missing_right_is_named_and_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    denied = AccessDeniedError("may not read $all", "$all", "$r")
    assert pauses_of(Breaking(denied, delivers=False), 2, monkeypatch) == ([0.2, 0.4], denied)
