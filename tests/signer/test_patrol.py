"""A running signer finds what was changed in the logs long before their end, stops and names it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from kt_es.errors import DivergenceError
from kt_es.eventstore.streams import ANY, Event, content_event
from kt_es.formats.heads import HeadEvent
from kt_es.formats.queue import decode_records, encode_records
from kt_es.ledger.ledger import Ledger
from signer import patrol
from signer.keys import KeyRing
from signer.loop import Signer
from signer.patrol import Patrol
from tests.builders import ORIGIN, SIGNER, SIGNER_KEY, every_changed_byte, mutation
from tests.projections.test_snapshot import loaded, saved
from tests.reference.memory_log import MemoryLog
from tests.reference.published_epochs import copy, published, sign_epoch, stored, streams
from tests.reference.signing import LIMITS, NAMES, data_of, effects, submit


@pytest.fixture(autouse=True)
def one_event_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patrol, "RECORD_EVENTS", 1)
    monkeypatch.setattr(patrol, "HEAD_EVENTS", 1)


def ledger() -> Ledger:
    return Ledger(stored(), ORIGIN, SIGNER_KEY)


def repeat(step: Callable[[], None], times: int) -> None:
    for _ in range(times):
        step()


def with_event(log: MemoryLog, stream: str, revision: int, data: bytes) -> MemoryLog:
    return copy(log, lambda s, r, old: data if (s, r) == (stream, revision) else old)


@pytest.mark.parametrize("start", range(4))
@pytest.mark.parametrize("stream", [NAMES.mutations, NAMES.heads])
@pytest.mark.parametrize("revision", [0, 1, 2])
def test_every_changed_event_is_come_to_within_a_round(stream: str, revision: int, start: int) -> None:
    log = published()[0]
    data = data_of(log, stream)[revision][1]
    found = Patrol(
        with_event(log, stream, revision, data[:-1] + bytes([data[-1] ^ 1])), NAMES, ledger(), start
    )
    with pytest.raises(DivergenceError, match=stream):
        repeat(found.step, 3)
    good = Patrol(copy(log), NAMES, ledger(), start)
    repeat(good.step, 10)


def test_every_changed_byte_of_an_event_is_found() -> None:
    log = published()[0]
    for stream in (NAMES.mutations, NAMES.heads):
        data = data_of(log, stream)[0][1]
        for changed in itertools.islice(every_changed_byte(data), 0, None, 37):
            with pytest.raises(DivergenceError):
                Patrol(with_event(log, stream, 0, changed), NAMES, ledger()).step()


def test_records_that_claim_to_come_later_are_not_passed_over() -> None:
    log = published()[0]
    records = decode_records(data_of(log, NAMES.mutations)[0][1])[1]
    for first in (1, 47, 10**9):
        with pytest.raises(DivergenceError, match=f"record {first} is not the one"):
            Patrol(
                with_event(log, NAMES.mutations, 0, encode_records(first, records)), NAMES, ledger()
            ).step()


def test_a_directory_that_began_with_a_snapshot_is_gone_round_too() -> None:
    log, of = copy(published()[0]), Ledger(loaded(saved()), ORIGIN, SIGNER_KEY)
    submit(log, [mutation("zoe")])
    sign_epoch(log, of)
    repeat(Patrol(log, NAMES, of).step, 10)
    data = data_of(log, NAMES.mutations)[3][1]
    changed = Patrol(with_event(log, NAMES.mutations, 3, data[:-1] + bytes([data[-1] ^ 1])), NAMES, of)
    with pytest.raises(DivergenceError, match="revision 3"):
        repeat(changed.step, 4)


def test_a_running_signer_stops_and_publishes_nothing_more() -> None:
    log, of = copy(published()[0]), ledger()
    first, records = decode_records(data_of(log, NAMES.mutations)[0][1])
    records[7] = records[7][:-1] + bytes([records[7][-1] ^ 1])
    changing = Changing(log)
    limits = replace(LIMITS, patrol=0.0)
    signer = Signer(
        changing,  # type: ignore[arg-type]
        NAMES,
        of,
        KeyRing([SIGNER]),
        effects=effects(lambda: log),
        limits=lambda: limits,
    )
    signer.recover()
    repeat(signer.advance, 5)
    changing.changed = {(NAMES.mutations, 0): encode_records(first, records)}
    submit(log, [mutation("zoe")])
    before = streams(log)[1:]
    with pytest.raises(DivergenceError, match=r"revision 0: record 7 is not the one committed here"):
        repeat(signer.advance, 6)
    assert streams(log)[1:] == before


class Changing:
    """A log in which events that stood there become others, whatever they were."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self.changed: dict[tuple[str, int], bytes] = {}

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    def read(self, stream: str, start: int = 0, limit: int | None = None) -> Sequence[Event]:
        return [
            replace(event, data=self.changed.get((stream, event.revision), event.data))
            for event in self._log.read(stream, start, limit)
        ]


def test_an_event_that_is_gone_or_of_another_type_is_named() -> None:
    log, other = published()[0], MemoryLog()
    for stream in (NAMES.mutations, NAMES.heads):
        for event in log.read(stream):
            kind = "Strange" if (stream, event.revision) == (NAMES.heads, 0) else event.type
            other.append(stream, ANY, [content_event(stream, kind, event.data)])
    with pytest.raises(DivergenceError, match=r"\(0, 'Strange'\)"):
        Patrol(other, NAMES, ledger()).step()
    other.truncate(NAMES.mutations, 1)
    with pytest.raises(DivergenceError, match=NAMES.mutations):
        Patrol(other, NAMES, ledger()).step()


def test_a_round_goes_on_with_the_logs() -> None:
    log, of = copy(published()[0]), ledger()
    going = Patrol(log, NAMES, of)
    for user in ("yves", "zoe"):
        going.step()
        submit(log, [mutation(user)])
        sign_epoch(log, of)
    data = data_of(log, NAMES.heads)[-1][1]
    changed = replace(HeadEvent.decode(data), heads_checkpoint="another").encode()
    later = Patrol(with_event(log, NAMES.heads, of.committed.epoch - 1, changed), NAMES, of)
    with pytest.raises(DivergenceError, match=f"another head of epoch {of.committed.epoch}"):
        repeat(later.step, of.committed.epoch)
