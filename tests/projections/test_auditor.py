"""What a monitor finds: each change of a log, named by the record or head that it stands in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from kt_es.errors import DivergenceError
from kt_es.eventstore.streams import ANY, content_event
from kt_es.formats.heads import HeadEvent, SignedMapHead
from kt_es.formats.queue import Record, Verdict, decode_records, encode_records
from projections.auditor import QueueCheck, audit
from tests.builders import SIGNER, START, mutation, next_mutation, private_key
from tests.reference.memory_log import MemoryLog
from tests.reference.signing import NAMES, new_ledger, new_log, records, signing, submit, wait_decided

Events = list[tuple[str, bytes]]


@pytest.fixture(scope="module")
def honest() -> MemoryLog:
    """Two epochs: a config, four mutations of three users, one refused item."""
    log = new_log()
    alice = mutation("alice")
    submit(log, [alice, mutation("bob"), mutation("carol")])
    with signing(log, new_ledger()):
        wait_decided(log)
        submit(log, [next_mutation("alice", alice), b"garbage"])
        wait_decided(log)
    return log


def events(log: MemoryLog, stream: str) -> Events:
    return [(event.type, event.data) for event in log.read(stream)]


def changed(honest: MemoryLog, stream: str, change: Callable[[Events], Events]) -> MemoryLog:
    """A copy of the three streams in which one of them is another."""
    copy = MemoryLog()
    for name in (NAMES.queue, NAMES.mutations, NAMES.heads):
        kept = events(honest, name)
        for number, (kind, data) in enumerate(change(kept) if name == stream else kept):
            copy.append(name, number - 1, [content_event(name, kind, data)])
    return copy


def audited(log: MemoryLog, *, with_queue: bool = True) -> str:
    """What the audit says, ``correct`` if nothing."""
    try:
        audit(log, NAMES, new_ledger(), with_queue=with_queue, now=lambda: START)
    except DivergenceError as error:
        return str(error)
    return "correct"


def test_honest_logs_are_correct(honest: MemoryLog) -> None:
    report = audit(honest, NAMES, new_ledger(), with_queue=True, now=lambda: START)
    assert report.records == report.compared_with_queue == len(records(honest))
    assert report.verdicts["accepted"] == 4
    assert report.verdicts["malformed"] == 1


def change_record(number: int, change: Callable[[Record], Record]) -> Callable[[Events], Events]:
    def apply(stored: Events) -> Events:
        made = []
        for kind, data in stored:
            first, encoded = decode_records(data)
            if first <= number < first + len(encoded):
                record = change(Record.decode(encoded[number - first]))
                encoded[number - first] = record.encode()
            made.append((kind, encode_records(first, encoded)))
        return made

    return apply


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: replace(r, verdict=Verdict.STALE), "record 1: says stale, must be accepted"),
        (lambda r: replace(r, sequence=7), "record 1: says that it is number 7"),
        (lambda r: replace(r, item=replace(r.item, position=1)), "record 1: queue item"),
        (lambda r: replace(r, item=replace(r.item, revision=9)), "record 1: queue item"),
        (
            lambda r: replace(r, item=replace(r.item, content=b"x")),
            "record 1: says accepted, must be malformed",
        ),
    ],
)
def test_a_changed_record_is_named(honest: MemoryLog, change: Callable[[Record], Record], said: str) -> None:
    log = changed(honest, NAMES.mutations, change_record(1, change))
    assert said in audited(log, with_queue=False)


def test_a_refusal_that_was_an_acceptance_is_named(honest: MemoryLog) -> None:
    garbage = next(r.sequence for r in records(honest) if r.verdict is Verdict.MALFORMED)
    log = changed(
        honest, NAMES.mutations, change_record(garbage, lambda r: replace(r, verdict=Verdict.ACCEPTED))
    )
    assert f"record {garbage}: says accepted, must be malformed" in audited(log)


def test_a_missing_records_event_is_named(honest: MemoryLog) -> None:
    log = changed(honest, NAMES.mutations, lambda stored: stored[:-1])
    assert "is missing" in audited(log)


def test_records_grouped_otherwise_are_named(honest: MemoryLog) -> None:
    def split(stored: Events) -> Events:
        first, encoded = decode_records(stored[0][1])
        halves = (encode_records(first, encoded[:2]), encode_records(first + 2, encoded[2:]))
        return [*((stored[0][0], half) for half in halves), *stored[1:]]

    assert "has other records than it must have" in audited(changed(honest, NAMES.mutations, split))


def change_head(change: Callable[[HeadEvent], HeadEvent]) -> Callable[[Events], Events]:
    def apply(stored: Events) -> Events:
        kind, data = stored[1]
        return [stored[0], (kind, change(HeadEvent.decode(data)).encode()), *stored[2:]]

    return apply


def resigned(**fields: object) -> Callable[[HeadEvent], HeadEvent]:
    """The head with other fields, signed by the directory's own key: a lie, not an accident."""

    def change(event: HeadEvent) -> HeadEvent:
        head = replace(SignedMapHead.decode(event.smh_bytes).head, **fields)  # type: ignore[arg-type]
        return replace(event, smh_bytes=SignedMapHead.sign(head, SIGNER).encode())

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (resigned(map_root=bytes(32)), "head of epoch 2: map_root is"),
        (resigned(map_size=9), "head of epoch 2: map_size is 9, must be 3"),
        (resigned(log_root=bytes(32)), "head of epoch 2: log_root is"),
        (resigned(log_size=3), "head of epoch 2: covers 3 records, must cover 8"),
        (resigned(timestamp=1), "head of epoch 2: timestamp is 1"),
        (resigned(epoch=3), "head of epoch 2: epoch is 3"),
        (resigned(queue_next=1), "head of epoch 2: queue_next is 1"),
        (resigned(config_hash=bytes(32)), "head of epoch 2: config_hash is"),
        (resigned(origin="kt.example.org/other"), "head of epoch 2: origin is"),
        (
            lambda event: replace(event, heads_checkpoint=event.mutations_checkpoint),
            "head of epoch 2: checkpoint",
        ),
        (
            lambda event: replace(event, mutations_checkpoint=event.heads_checkpoint),
            "head of epoch 2: checkpoint",
        ),
    ],
)
def test_a_changed_head_is_named(
    honest: MemoryLog, change: Callable[[HeadEvent], HeadEvent], said: str
) -> None:
    log = changed(honest, NAMES.heads, change_head(change))
    assert said in audited(log, with_queue=False)


def test_a_head_by_another_key_is_named(honest: MemoryLog) -> None:
    def change(event: HeadEvent) -> HeadEvent:
        head = SignedMapHead.decode(event.smh_bytes).head
        return replace(event, smh_bytes=SignedMapHead.sign(head, private_key("eve")).encode())

    assert "is not signed by the directory's key" in audited(
        changed(honest, NAMES.heads, change_head(change))
    )


def test_a_head_is_missing(honest: MemoryLog) -> None:
    log = changed(honest, NAMES.heads, lambda stored: stored[1:])
    assert "head of epoch 1" in audited(log)


# --- against the queue: what only who reads it can see -----------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda q: [q[0], (q[1][0], q[2][1]), *q[2:]], "record 1: says item (1, 0)"),
        (lambda q: [*q[:2], ("Surprise", b"x"), *q[3:]], "says item (2, 0)"),
        (lambda q: q[:3], "no event at revision 3"),
    ],
)
def test_a_log_that_is_not_of_this_queue_is_named(
    honest: MemoryLog, change: Callable[[Events], Events], said: str
) -> None:
    log = changed(honest, NAMES.queue, change)
    assert said in audited(log)
    assert audited(log, with_queue=False) == "correct"


def test_an_item_that_was_left_out_is_named(honest: MemoryLog) -> None:
    first = records(honest)[1]
    check = QueueCheck(lambda start: honest.read(NAMES.queue, start))
    check.observe(first)
    beyond = next(record for record in records(honest) if record.item.revision > first.item.revision)
    with pytest.raises(DivergenceError, match=r"leaves out item \(1, 1\)"):
        check.observe(beyond)


def test_a_truncated_queue_is_compared_from_where_it_begins(honest: MemoryLog) -> None:
    log = changed(honest, NAMES.queue, lambda stored: stored)
    log.truncate(NAMES.queue, 3)
    report = audit(log, NAMES, new_ledger(), with_queue=True, now=lambda: START)
    assert 0 < report.compared_with_queue < report.records


def test_records_may_be_observed_again_after_an_outage(honest: MemoryLog) -> None:
    check = QueueCheck(lambda start: honest.read(NAMES.queue, start))
    for record in (*records(honest)[:3], *records(honest)[1:], *records(honest)):
        check.observe(record)
    assert check.compared == 3 + len(records(honest)) - 1 + len(records(honest))


def test_a_queue_that_goes_on_is_read_on(honest: MemoryLog) -> None:
    log = new_log()
    submit(log, [mutation("alice")])
    check = QueueCheck(lambda start: log.read(NAMES.queue, start))
    with signing(log, new_ledger()):
        wait_decided(log)
        seen = records(log)
        for record in seen:
            check.observe(record)
        log.append(NAMES.queue, ANY, [content_event(NAMES.queue, "Surprise", b"x")])
        wait_decided(log)
    for record in records(log)[len(seen) :]:
        check.observe(record)
    assert check.compared == len(records(log))
