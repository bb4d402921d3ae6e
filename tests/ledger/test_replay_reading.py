"""A replay reads each event about once, however short the epochs are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kt_es.errors import UnverifiedRowError
from kt_es.eventstore.esdb_client import PAGE
from kt_es.eventstore.streams import ANY, Event, NewEvent, content_event
from kt_es.formats.queue import EPOCH_MARKER
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.replay import Replay
from kt_es.ledger.tables import FAMILIES
from kt_es.ledger.verifiers import Verifiers
from kt_es.merkle.map import Map
from tests import builders as b
from tests.reference.forks import Turning, story
from tests.reference.memory_log import MemoryLog
from tests.reference.signing import NAMES, new_ledger, new_log, new_signer, submit

EPOCHS = 100


class PagedLog:
    """A memory log that is read in pages, as a server is, and counts the events in them."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self.fetched = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    def read(self, stream: str, start: int = 0, limit: int | None = None) -> Iterator[Event]:
        while page := list(self._log.read(stream, start, PAGE)):
            self.fetched += len(page)
            yield from page
            if len(page) < PAGE:
                return
            start = page[-1].revision + 1


def with_short_epochs(count: int) -> MemoryLog:
    log = new_log()
    signer = new_signer(log, new_ledger())
    for number in range(count):
        submit(log, [b.mutation(f"user {number}")])
        log.append(NAMES.queue, ANY, [marker(number)])
    for event in list(log.read(NAMES.queue)):
        signer._process(event)
    return log


def marker(number: int) -> NewEvent:
    return content_event(NAMES.queue, EPOCH_MARKER, b.marker(b.START + number).encode())


def test_catching_up_reads_each_event_about_once() -> None:
    log = PagedLog(with_short_epochs(EPOCHS))
    ledger = new_ledger()
    epochs = [epoch.head.epoch for epoch in Replay(log, NAMES, ledger).catch_up()]  # type: ignore[arg-type]
    assert epochs == list(range(1, EPOCHS + 1))
    # One head and one records event each.
    assert log.fetched <= 2 * EPOCHS + 2 * PAGE


def test_what_was_published_meanwhile_is_found() -> None:
    log = with_short_epochs(3)
    ledger = new_ledger()
    replay = Replay(log, NAMES, ledger)
    assert len(list(replay.catch_up())) == 3
    signer = new_signer(log, new_ledger())
    signer.recover()
    submit(log, [b.mutation("late")])
    log.append(NAMES.queue, ANY, [marker(1000)])
    for event in list(log.read(NAMES.queue, ledger.committed.queue_next)):
        signer._process(event)
    assert [epoch.head.epoch for epoch in replay.catch_up()] == [4]


def test_records_that_were_read_ahead_may_be_others_when_their_head_comes() -> None:
    """A log that is restored, and loses what has no head yet, makes no lie of what was read before."""
    before, after = story("alice", "bob"), story("alice", "carol")
    first = MemoryLog()
    for stream, count in ((NAMES.queue, None), (NAMES.mutations, 2), (NAMES.heads, 1)):
        for event in before.log.read(stream, 0, count):
            first.append(stream, event.revision - 1, [content_event(stream, event.type, event.data)])
    log: Any = Turning(first)
    with Verifiers(b.ORIGIN, 1) as verifiers:
        replay = Replay(log, NAMES, new_ledger(), verifiers=verifiers)
        assert [epoch.head.epoch for epoch in replay.catch_up()] == [1]
        log.reads = after.log
        assert [epoch.head.epoch for epoch in replay.catch_up()] == [2]


def test_a_damaged_row_is_reported_at_once_and_says_nothing_about_the_log() -> None:
    streams, store = story("alice", "bob"), MemoryStore(FAMILIES)
    ledger, log = new_ledger(store), Turning(streams.log)  # type: ignore[arg-type]
    replay = Replay(log, NAMES, ledger)  # type: ignore[arg-type]
    assert len(list(replay.catch_up())) == 2
    streams.put_user("carol")
    streams.epoch()
    store.write([("pages", key, None) for key, _ in list(store.scan("pages"))])
    ledger.map = Map(ledger.tables.pages)
    log.read_calls.clear()
    with pytest.raises(UnverifiedRowError, match="is missing"):
        list(replay.catch_up())
    assert [stream for stream, _, _ in log.read_calls].count(NAMES.mutations) == 1
