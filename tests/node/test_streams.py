"""Whether an append or a delete is accepted, and what metadata says: pure decisions of the node."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_es.eventstore.rights import JSON
from kt_es.node.store.streams import (
    LAST_REVISION,
    Accept,
    Decision,
    Deleted,
    Duplicate,
    Expected,
    StreamHead,
    Wrong,
    decide,
    decide_delete,
    with_metadata,
)

ANY, NO_STREAM, EXISTS = Expected.ANY, Expected.NO_STREAM, Expected.EXISTS


def ask(expected: int | Expected, stream: str, ids: str, **head: int) -> Decision:
    """Decide for a stream whose events have the letters of ``stream`` as ids."""
    state = StreamHead(1 if stream else 0, len(stream) - 1, **head)  # type: ignore[arg-type]
    return decide(
        expected,
        state,
        list(ids),
        lambda revision: stream[revision] if 0 <= revision < len(stream) else None,
        lambda id_: stream.rindex(id_) if id_ in stream else None,
    )


CASES: list[tuple[int | Expected, str, str, Decision]] = [
    (NO_STREAM, "", "ab", Accept(0)),
    (ANY, "", "ab", Accept(0)),
    (EXISTS, "", "a", Wrong(-1)),
    (0, "", "a", Wrong(-1)),
    (2, "abc", "d", Accept(3)),
    (ANY, "abc", "d", Accept(3)),
    (EXISTS, "abc", "d", Accept(3)),
    (1, "abc", "d", Wrong(2)),
    (3, "abc", "d", Wrong(2)),
    (NO_STREAM, "abc", "d", Wrong(2)),
    # repetitions at their place
    (NO_STREAM, "abcd", "abcd", Duplicate(3)),
    (NO_STREAM, "abcd", "ab", Duplicate(1)),
    (1, "abcd", "cd", Duplicate(3)),
    (NO_STREAM, "abcd", "abcde", Wrong(3)),
    (NO_STREAM, "abcd", "dcba", Wrong(3)),
    (0, "abcd", "cd", Wrong(3)),
    # the last revision is expected: a new append, whatever the ids
    (3, "abcd", "d", Accept(4)),
    # repetitions found by id
    (ANY, "abcd", "bc", Duplicate(2)),
    (EXISTS, "abcd", "bc", Duplicate(2)),
    (ANY, "abcd", "cde", Wrong(3)),
    (ANY, "abcd", "xa", Wrong(3)),
    (ANY, "abcd", "cb", Wrong(3)),
    # nothing to append
    (ANY, "abc", "", Accept(3)),
    (0, "abc", "", Wrong(2)),
]


@pytest.mark.parametrize(("expected", "stream", "ids", "decision"), CASES)
def test_appends(expected: int | Expected, stream: str, ids: str, decision: Decision) -> None:
    assert ask(expected, stream, ids) == decision


DELETED: list[tuple[int | Expected, str, Decision]] = [
    (NO_STREAM, "d", Accept(3)),
    (ANY, "d", Accept(3)),
    (2, "d", Accept(3)),
    (0, "d", Wrong(-1)),
    (EXISTS, "d", Deleted()),
    (ANY, "abc", Accept(3)),  # what was deleted does not count as written
]


@pytest.mark.parametrize(("expected", "ids", "decision"), DELETED)
def test_appends_to_a_deleted_stream(expected: int | Expected, ids: str, decision: Decision) -> None:
    assert ask(expected, "abc", ids, truncate_before=LAST_REVISION) == decision


def test_a_stream_written_again_recognises_repetitions_behind_what_was_deleted() -> None:
    assert ask(NO_STREAM, "abcde", "de", truncate_before=3) == Duplicate(4)
    assert ask(ANY, "abcde", "ab", truncate_before=3) == Accept(5)


@pytest.mark.parametrize("expected", [ANY, NO_STREAM, EXISTS, 2, 3])
def test_nothing_is_accepted_after_a_tombstone(expected: int | Expected) -> None:
    head = StreamHead(1, LAST_REVISION, tombstoned=True)
    assert decide(expected, head, ["d"], lambda _: None, lambda _: None) == Deleted()
    assert decide_delete(expected, head, hard=False) == Deleted()
    assert decide_delete(expected, head, hard=True) == Deleted()


LIVE, MISSING = StreamHead(1, 2), StreamHead()
GONE = StreamHead(1, 2, truncate_before=LAST_REVISION)
DELETES: list[tuple[int | Expected, StreamHead, bool, Decision]] = [
    (2, LIVE, False, Accept(2)),
    (ANY, LIVE, True, Accept(2)),
    (EXISTS, LIVE, True, Accept(2)),
    (1, LIVE, False, Wrong(2)),
    (NO_STREAM, LIVE, True, Wrong(2)),
    (ANY, MISSING, False, Wrong(-1)),
    (ANY, MISSING, True, Accept(-1)),
    (NO_STREAM, MISSING, True, Accept(-1)),
    (NO_STREAM, MISSING, False, Wrong(-1)),
    (EXISTS, MISSING, True, Wrong(-1)),
    (2, GONE, False, Accept(2)),
    (ANY, GONE, False, Accept(2)),
    (EXISTS, GONE, False, Deleted()),
]


@pytest.mark.parametrize(("expected", "head", "hard", "decision"), DELETES)
def test_deletes(expected: int | Expected, head: StreamHead, hard: bool, decision: Decision) -> None:
    assert decide_delete(expected, head, hard) == decision


METADATA = [
    (b'{"$tb": 4, "$maxCount": 3, "$maxAge": 60, "other": 1}', (4, 3, 60)),
    (b"{}", (0, -1, -1)),
    (b"not json", (0, -1, -1)),
    (b"[1]", (0, -1, -1)),
    (b'{"$tb": "4", "$maxCount": true, "$maxAge": -1}', (0, -1, -1)),
    (b'{"$tb": 4, "$maxCount": 0, "$maxAge": 0}', (4, -1, -1)),
    (b'{"$tb": 99999999999999999999}', (0, -1, -1)),
    (b"\xff", (0, -1, -1)),
    (b"[" * 100_000, (0, -1, -1)),
    (b'{"a":' * 100_000, (0, -1, -1)),
]


@pytest.mark.parametrize(("data", "limits"), METADATA)
def test_metadata_that_cannot_be_used_counts_as_not_set(data: bytes, limits: tuple[int, int, int]) -> None:
    head = with_metadata(StreamHead(1, 9, truncate_before=2, max_count=1, max_age=1), JSON, data)
    assert (head.truncate_before, head.max_count, head.max_age) == limits


@pytest.mark.parametrize(
    ("head", "first"),
    [
        (StreamHead(1, 9), 0),
        (StreamHead(1, 9, max_count=3), 7),
        (StreamHead(1, 9, truncate_before=8, max_count=3), 8),
        (GONE, LAST_REVISION),
    ],
)
def test_what_is_read_first(head: StreamHead, first: int) -> None:
    assert head.first == first


@given(
    st.builds(
        StreamHead,
        st.integers(0, 2**64 - 1),
        st.integers(-1, LAST_REVISION),
        st.booleans(),
        st.integers(0, LAST_REVISION),
        st.integers(-1, LAST_REVISION),
        st.integers(-1, LAST_REVISION),
    )
)
def test_a_head_is_read_back(head: StreamHead) -> None:
    assert StreamHead.decode(head.encode()) == head
