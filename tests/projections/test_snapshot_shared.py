"""Snapshots of a shared store: what is saved are the rows that were verified."""

from __future__ import annotations

from io import BytesIO

import pytest

from kt_es.errors import DivergenceError
from kt_es.ledger.adoption import Adoption
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.tables import FAMILIES
from projections.fsck.examination import fsck
from projections.snapshot import load, save
from tests import builders as b
from tests.reference.lies import LIES, Lie, Rows, rows
from tests.reference.sharing import Replicas, ledger_of
from tests.reference.true_answers import ORIGINAL, copied


def saved(replicas: Replicas) -> bytes:
    ledger = ledger_of(replicas)
    list(Adoption(ORIGINAL.log, ORIGINAL.names, ledger).jump())
    file = BytesIO()
    save(ledger, file)
    return file.getvalue()


TRUTH = saved(copied()[1])


def record_of_another_epoch(key: bytes, value: bytes, _rows: Rows) -> bytes:
    """The first record of all in rows of later epochs, the last one in those of the first epoch."""
    is_first = int.from_bytes(key[32:40]) == 1
    return (ORIGINAL.ledger.committed.log.size - 1 if is_first else 0).to_bytes(8) + value[8:]


WRONG: dict[str, Lie] = {
    **{
        name: LIES[name]
        for name in (
            "forged pages",
            "no pages below",
            "no entries",
            "entries of others",
            "entries whose signatures are wrong",
            "entries without their last signature",
            "entries that a stranger signed",
            "entries that a stranger signed, too",
            "entries and leaves of other epochs",
        )
    },
    "records that are to come": rows("entries", lambda _k, value, _: (2**40).to_bytes(8) + value[8:]),
    "records of other epochs": rows("entries", record_of_another_epoch),
}


def test_a_snapshot_of_a_shared_store_begins_a_good_directory() -> None:
    store = MemoryStore(FAMILIES)
    load(BytesIO(TRUTH), store, b.ORIGIN, b.SIGNER_KEY)
    assert fsck(store, b.ORIGIN, b.SIGNER_KEY, log=(ORIGINAL.log, ORIGINAL.names)).differences == []


@pytest.mark.parametrize("name", WRONG)
def test_nothing_is_saved_of_rows_that_are_wrong(name: str) -> None:
    _, replicas = copied()
    replicas.write(WRONG[name](replicas))
    with pytest.raises(DivergenceError):
        saved(replicas)


@pytest.mark.parametrize("name", [name for name in WRONG if "leaves" not in name])
def test_a_lie_of_one_replica_is_not_saved(name: str) -> None:
    _, replicas = copied()
    for family, key, value in WRONG[name](replicas):
        replicas.first[family, key] = value
    assert saved(replicas) == TRUTH


def test_a_wrong_record_of_the_right_epoch_is_found_by_the_examination_of_what_was_loaded() -> None:
    _, replicas = copied()
    first = {key: value for key, value in replicas.rows("entries").items() if key[32:40] == (1).to_bytes(8)}
    replicas.write([("entries", key, bytes(7) + b"\x01" + value[8:]) for key, value in first.items()])
    store = MemoryStore(FAMILIES)
    load(BytesIO(saved(replicas)), store, b.ORIGIN, b.SIGNER_KEY)
    differences = fsck(store, b.ORIGIN, b.SIGNER_KEY, log=(ORIGINAL.log, ORIGINAL.names)).differences
    assert any("see record 2" in difference for difference in differences)
