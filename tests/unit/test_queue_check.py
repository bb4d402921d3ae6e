"""The monitor's comparison of records with the queue itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kt_es.errors import DivergenceError
from kt_es.eventstore.streams import ANY, content_event
from kt_es.formats.queue import MUTATIONS, Item, encode_mutations, items_of
from kt_es.formats.records import Record, Verdict
from projections.auditor import QueueCheck
from tests.reference.memory_log import MemoryLog

QUEUE = "kt_queue-people"


def queued(log: MemoryLog, *events: list[bytes]) -> list[Record]:
    """Append ``events`` and return the records of all items that the queue has then."""
    for event in events:
        log.append(QUEUE, ANY, [content_event(QUEUE, MUTATIONS, encode_mutations(event))])
    items: list[Item] = []
    for stored in log.read(QUEUE):
        items += items_of(stored.revision, stored.type, stored.data)
    return [Record(number, item, Verdict.ACCEPTED) for number, item in enumerate(items)]


def test_every_item_in_its_order_is_correct() -> None:
    log = MemoryLog()
    records = queued(log, [b"a", b"b"], [b"c"])
    check = QueueCheck(log, QUEUE, 0)
    for record in records:
        check.observe(record)
    assert check.compared == 3


@pytest.mark.parametrize("left_out", [0, 1])
def test_an_item_left_out_is_named(left_out: int) -> None:
    log = MemoryLog()
    records = queued(log, [b"a", b"b"], [b"c"])
    check = QueueCheck(log, QUEUE, 0)
    for record in records[:left_out]:
        check.observe(record)
    with pytest.raises(DivergenceError, match=f"record {left_out + 1}: "):
        check.observe(records[left_out + 1])


def test_other_content_is_named() -> None:
    log = MemoryLog()
    (record,) = queued(log, [b"a"])
    changed = replace(record, item=replace(record.item, content=b"b"))
    with pytest.raises(DivergenceError, match="with other content"):
        QueueCheck(log, QUEUE, 0).observe(changed)


def test_an_item_behind_the_end_of_the_queue_never_was_in_it() -> None:
    log = MemoryLog()
    records = queued(log, [b"a"])
    check = QueueCheck(log, QUEUE, 0)
    check.observe(records[0])
    invented = Record(1, replace(records[0].item, revision=1), Verdict.ACCEPTED)
    with pytest.raises(DivergenceError, match=r"record 1: .*has nothing there"):
        check.observe(invented)


def test_the_queue_may_grow_meanwhile() -> None:
    log = MemoryLog()
    check = QueueCheck(log, QUEUE, 0)
    for record in queued(log, [b"a"]):
        check.observe(record)
    check.observe(queued(log, [b"b", b"c"])[1])
    check.observe(queued(log)[2])
    assert check.compared == 3


def test_what_was_truncated_is_passed_over() -> None:
    log = MemoryLog()
    records = queued(log, [b"a"], [b"b"], [b"c"])
    log.truncate(QUEUE, 2)
    check = QueueCheck(log, QUEUE, 0)
    for record in records:
        check.observe(record)
    assert check.compared == 1
