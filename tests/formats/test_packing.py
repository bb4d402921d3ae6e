"""How records are grouped into events: a function of the records alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kt_es.formats.queue import (
    MAX_EVENT_BYTES,
    MAX_RECORD,
    RecordPacker,
    Verdict,
    decode_records,
)

Lines = list[tuple[bytes, bool]]
LINES = st.lists(
    st.tuples(
        st.sampled_from([60, 104, 200, 4_000, MAX_RECORD]).map(bytes), st.sampled_from([False] * 30 + [True])
    ),
    max_size=600,
)


def packed(lines: Lines, first: int = 0) -> list[tuple[int, list[bytes]]]:
    packer = RecordPacker(first)
    events = [event for record, closes in lines for event in packer.add(record, closes_epoch=closes)]
    return [decode_records(event) for event in events]


def sizes(lines: Lines) -> list[int]:
    return [len(records) for _, records in packed(lines)]


def test_a_marker_closes_the_event() -> None:
    assert packed([(b"a", False), (b"b", True), (b"c", True)], 5) == [(5, [b"a", b"b"]), (7, [b"c"])]


def test_without_a_marker_the_event_stays_open() -> None:
    assert packed([(b"a", False)] * 255) == []


def test_256_records_close_the_event() -> None:
    assert sizes([(b"a", False)] * 600) == [256, 256]
    assert sizes([(b"a", False)] * 255 + [(b"b", True)]) == [256]
    assert sizes([(b"a", False)] * 256 + [(b"b", True)]) == [256, 1]


def test_256_kib_of_records_fill_the_event_and_one_more_byte_closes_it_before() -> None:
    full = [(bytes(16 * 1024), False)] * 16
    assert sum(len(record) for record, _ in full) == MAX_EVENT_BYTES
    assert sizes(full) == []
    assert sizes([*full, (b"a", False)]) == [16]
    assert sizes([*full, (b"a", True)]) == [16, 1]


@given(LINES, st.integers(0, 2**40))
def test_grouping_keeps_every_record_and_its_number(lines: Lines, first: int) -> None:
    lines.append((b"end", True))
    sequence, again = first, []
    for number, records in packed(lines, first):
        assert number == sequence
        assert 1 <= len(records) <= 256
        assert sum(map(len, records)) <= MAX_EVENT_BYTES
        sequence += len(records)
        again += records
    assert again == [record for record, _ in lines]


@given(LINES)
def test_grouping_does_not_depend_on_when_the_packer_was_made(lines: Lines) -> None:
    whole = packed(lines)
    closed = [place + 1 for place, (_, closes) in enumerate(lines) if closes]
    if not closed:
        return
    at = closed[len(closed) // 2]
    assert packed(lines[:at]) + packed(lines[at:], at) == whole


def test_verdicts_have_their_names() -> None:
    assert Verdict.FOREIGN_MARKER.label == "foreign-marker"
    assert [verdict for verdict in Verdict if verdict.succeeded] == [
        Verdict.ACCEPTED,
        Verdict.DUPLICATE,
        Verdict.EPOCH,
        Verdict.CONFIG,
        Verdict.ERASED,
    ]


def test_a_packer_goes_on_where_the_log_ends() -> None:
    packer = RecordPacker(9)
    assert [decode_records(data) for data in packer.add(b"x", closes_epoch=True)] == [(9, [b"x"])]
    assert [decode_records(data) for data in packer.add(b"y", closes_epoch=True)] == [(10, [b"y"])]
