"""``kt store check`` finds each row of a shared store that signers and front ends would refuse."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kt_es.errors import UnverifiedRowError
from kt_es.ledger.adoption import Adoption
from kt_es.ledger.fold import with_head
from kt_es.ledger.rows import Committed
from kt_es.ledger.shared_tables import SharedTables
from kt_es.merkle.map import Root
from projections.fsck.directory import FsckReport
from projections.fsck.examination import check_shared
from tests import builders as b
from tests.reference.memory_log import MemoryLog
from tests.reference.sharing import Replicas, ledger_of
from tests.reference.true_answers import NEWEST, ORIGINAL, copied

FAMILIES = ("entries", "nodes", "heads", "configs", "erasures", "states", "pages", "replaced")
"""Families whose rows the check of an unpruned store compares."""


def check(replicas: Replicas, log: MemoryLog, epoch: int = NEWEST) -> FsckReport:
    """Examine the store as ``kt store check`` does."""
    ledger = ledger_of(replicas)
    list(Adoption(log, ORIGINAL.names, ledger).jump())
    report = FsckReport(lambda _what, _count: None, 100, goes_on=True)
    check_shared(ledger, epoch, log, ORIGINAL.names, report)
    return report


def found(replicas: Replicas, log: MemoryLog) -> int:
    """The number of problems. Without a good state, config or root page, no epoch can be adopted: 1."""
    try:
        return check(replicas, log).found
    except UnverifiedRowError:
        return 1


def flipped(value: bytes) -> bytes:
    return value[:-1] + bytes([value[-1] ^ 1])


def used(family: str) -> list[bytes]:
    """The keys of the rows that the check of the newest epoch reads."""
    keys = sorted(ORIGINAL.replicas.rows(family))
    if family == "pages":
        return sorted(ORIGINAL.ledger.map.pages_of(ORIGINAL.ledger.committed.root, keys))
    if family == "replaced":
        return [key for key in keys if key[:8] == NEWEST.to_bytes(8)]
    return keys


def test_a_whole_store_has_no_problems_and_everything_is_examined() -> None:
    log, replicas = copied()
    for epoch in range(1, NEWEST + 1):
        report = check(replicas, log, epoch)
        assert (report.differences, report.found) == ([], 0)
    size, committed = ORIGINAL.ledger.committed.root.size, ORIGINAL.ledger.committed
    assert report.counts == {
        "leaves of the map": size,
        "heads": NEWEST,
        "states": NEWEST,
        "nodes of the logs": len(ORIGINAL.replicas.rows("nodes")),
        "records in the stream": committed.log.size,
    }


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("change", [flipped, lambda _: None], ids=["flipped", "missing"])
def test_every_row_that_is_changed_or_missing_is_found(
    family: str, change: Callable[[bytes], bytes | None]
) -> None:
    rows, keys = ORIGINAL.replicas.rows(family), used(family)
    assert keys
    for key in keys:
        log, replicas = copied()
        replicas.write([(family, key, change(rows[key]))])
        # The rows that follow from the newest head may be missing: its signer is about to write them.
        must = change is flipped or (family, key) not in NEWEST_ROWS
        assert bool(found(replicas, log)) == must, key.hex()


def newest_rows() -> set[tuple[str, bytes]]:
    tables, event = ORIGINAL.ledger.tables, ORIGINAL.ledger.tables.heads.event(NEWEST)
    assert isinstance(tables, SharedTables)
    row = tables.states.published(NEWEST, event)
    assert row is not None
    state = Committed.decode(row, b.ORIGIN, b.SIGNER_KEY)
    return {(family, key) for family, key, _ in with_head(tables, state, event, state.records_next)[1]}


NEWEST_ROWS = newest_rows()


@pytest.mark.parametrize("family", ["entries", "nodes", "heads", "erasures"])
def test_a_family_that_is_wrong_as_a_whole_is_found(family: str) -> None:
    log, replicas = copied()
    rows = replicas.rows(family)
    replicas.write([(family, key, flipped(value)) for key, value in rows.items()])
    report = check(replicas, log)
    assert report.found >= len(rows)
    assert report.counts["leaves of the map"] == ORIGINAL.ledger.committed.root.size


def test_a_wrong_node_and_a_wrong_head_are_each_named_in_few_sentences() -> None:
    log, replicas = copied()
    key = next(key for key in replicas.rows("nodes") if key[:2] == b"m\x01")
    replicas.write([("nodes", key, flipped(replicas.rows("nodes")[key]))])
    assert 1 <= check(replicas, log).found <= 2
    log, replicas = copied()
    key = (2).to_bytes(8)
    replicas.write([("heads", key, flipped(replicas.rows("heads")[key]))])
    report = check(replicas, log)
    assert report.found == 1
    assert report.differences[0].startswith("the head of epoch 2")


def test_a_state_with_another_version_of_the_root_is_found() -> None:
    log, replicas = copied()
    _, key, *_ = sorted(replicas.rows("states"))
    state = Committed.decode(replicas.rows("states")[key], b.ORIGIN, b.SIGNER_KEY)
    wrong = Committed(
        state.standing,
        Root(1, state.root.hash, state.root.size),
        state.log,
        state.heads,
        state.queue_next,
        state.records_next,
    )
    replicas.write([("states", key, wrong.encode())])
    assert check(replicas, log).differences == [
        "the state after epoch 2: it says that epoch 1 wrote the root of the map; epoch 2 did"
    ]


def test_rows_of_epochs_that_were_given_up_are_no_problem() -> None:
    log, replicas = copied()
    entries, erasures = replicas.rows("entries"), replicas.rows("erasures")
    key, value = max(entries.items())
    replicas.write([("entries", key[:32] + (NEWEST + 1).to_bytes(8) + bytes(32), value)])
    key, value = max(erasures.items())
    replicas.write([("erasures", key[:64] + (NEWEST + 1).to_bytes(8) + key[72:], value)])
    assert check(replicas, log).differences == []


@pytest.mark.parametrize("row", ["oldest", "pruned"])
def test_a_bound_of_pruning_that_cannot_be_true_is_named(row: str) -> None:
    log, replicas = copied()
    replicas.write([("about", row.encode(), (1048575).to_bytes(8))])
    with pytest.raises(UnverifiedRowError, match=rf"row about/{row} .* wrong.* 1048575 .*a new keyspace"):
        check(replicas, log)


def test_memory_of_a_report_is_bounded() -> None:
    report = FsckReport(lambda _what, _count: None, 3, goes_on=True)
    for number in range(10):
        report.differs(f"difference {number}")
    assert (len(report.differences), report.found) == (3, 10)
