"""What an epoch left behind that was never finished counts for nothing once the queue has another end.

A log that is restored loses the end of its queue, and a replay of forged records is given up in its middle:
what both had written ahead stands in the store, under the number of the epoch that comes then.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kt_es.errors import DivergenceError
from kt_es.eventstore.streams import ANY, content_event
from kt_es.formats.entries import Mutation
from kt_es.formats.erasures import Erasure, ErasureReason
from kt_es.formats.queue import CONFIG, EPOCH_MARKER, ERASURE, MUTATIONS, encode_mutations
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.proofs import prove_erasure
from kt_es.ledger.rows import ErasureTable
from kt_es.ledger.tables import FAMILIES, AheadTable
from projections.fsck.examination import fsck
from signer.loop import Signer
from tests.builders import (
    ORIGIN,
    SIGNER,
    SIGNER_KEY,
    START,
    config,
    marker,
    mutation,
    private_key,
    signed_config,
)
from tests.reference.memory_log import MemoryLog
from tests.reference.signing import NAMES, check_logs, new_signer, verdicts

LOST = [mutation(f"user{number}") for number in range(12)]
# Of the same users, in the same places, but others.
STANDING = [mutation(f"user{number}", commits_to=bytes([number]) * 32) for number in range(12)]
NEXT = config(signer_keys=[private_key("next")], previous=config().hash)
ROTATION = signed_config(NEXT, [SIGNER, private_key("next")]).encode()


def queue(*more: tuple[str, bytes]) -> MemoryLog:
    """The first epoch, which is the config's and published, and ``more`` behind it."""
    log = MemoryLog()
    first = [(CONFIG, signed_config().encode()), (EPOCH_MARKER, marker(START).encode())]
    for revision, (kind, data) in enumerate([*first, *more]):
        log.append(NAMES.queue, revision - 1, [content_event(NAMES.queue, kind, data)])
        if revision == len(first) - 1:
            process(log, ledger_of(MemoryStore(FAMILIES)))
    return log


def batches(mutations: Sequence[Mutation]) -> list[tuple[str, bytes]]:
    return [(MUTATIONS, encode_mutations([one.encode()])) for one in mutations]


def ledger_of(store: MemoryStore) -> Ledger:
    return Ledger(store, ORIGIN, SIGNER_KEY, slice_size=4)


def process(log: MemoryLog, ledger: Ledger) -> Signer:
    signer = new_signer(log, ledger)
    signer.recover()
    for event in log.read(NAMES.queue, ledger.committed.queue_next):
        signer._process(event)
    return signer


def begun_and_lost(*lost: tuple[str, bytes]) -> MemoryStore:
    """The store of a signer that crashed behind ``lost``, whose records it had not yet appended."""
    store = MemoryStore(FAMILIES)
    signer = process(queue(*lost), ledger_of(store))
    assert signer._work.size >= len(lost)
    return store


@pytest.mark.parametrize("shift", [0, 1, 5, 7])
def test_entries_of_a_lost_end_of_the_queue_take_nobodys_place(shift: int) -> None:
    store = begun_and_lost(*batches(LOST))
    standing = [*STANDING[shift:8], *STANDING[:shift]]
    log = queue(*batches(standing), (EPOCH_MARKER, marker(START + 1).encode()))
    ledger = ledger_of(store)
    process(log, ledger)
    assert verdicts(log) == ["accepted"] * len(standing)
    check_logs(log)
    # Nor does what was lost and did not come again stand in a history.
    for lost in LOST[8:]:
        assert [found for _, found in ledger.history(ledger.committed, lost.entry.index)] == []


def test_a_config_of_a_lost_end_of_the_queue_is_forgotten() -> None:
    store = begun_and_lost((CONFIG, ROTATION), *batches(LOST))
    log = queue(*batches(STANDING), (EPOCH_MARKER, marker(START + 1).encode()))
    process(log, ledger_of(store))
    # It starts again, and on a config that was never accepted it would not.
    process(log, ledger_of(store))
    report = fsck(store, ORIGIN, SIGNER_KEY, log=(log, NAMES))
    assert report.is_good, report.differences
    check_logs(log)


def test_an_erasure_of_a_lost_end_of_the_queue_is_forgotten() -> None:
    named = mutation("user0")
    erasure = Erasure.sign(named.entry.index, named.entry_hash, ErasureReason.LAW, ORIGIN, SIGNER).encode()
    marks = [(EPOCH_MARKER, marker(START + number).encode()) for number in (1, 2)]
    first = (*batches([named]), marks[0])
    store = MemoryStore(FAMILIES)
    process(queue(*first, (ERASURE, erasure), *batches(LOST[1:])), ledger_of(store))
    assert list(store.scan(ErasureTable.FAMILY, ErasureTable.PREFIX)) != []
    log = queue(*first)
    process(log, ledger_of(MemoryStore(FAMILIES)))
    for kind, data in (*batches(STANDING[1:]), marks[1]):
        log.append(NAMES.queue, ANY, [content_event(NAMES.queue, kind, data)])
    process(log, ledger_of(store))
    assert list(store.scan(ErasureTable.FAMILY, ErasureTable.PREFIX)) == []
    check_logs(log)


def test_an_erasure_in_an_epoch_that_is_written_in_slices_stays() -> None:
    named = mutation("user0")
    erasure = Erasure.sign(named.entry.index, named.entry_hash, ErasureReason.LAW, ORIGIN, SIGNER).encode()
    marks = [(EPOCH_MARKER, marker(START + number).encode()) for number in (1, 2)]
    store = MemoryStore(FAMILIES)
    log = queue(*batches([named]), marks[0], (ERASURE, erasure), *batches(LOST[1:]), marks[1])
    ledger = ledger_of(store)
    process(log, ledger)
    proof = prove_erasure(ledger, ledger.committed, named.entry.index, named.entry_hash, 3)
    assert proof is not None
    assert prove_erasure(ledger, ledger.committed, named.entry.index, bytes(32), 3) is None
    assert fsck(store, ORIGIN, SIGNER_KEY, log=(log, NAMES)).is_good


def test_a_forged_log_that_was_refused_leaves_nothing_behind() -> None:
    """The forger has put the items in another order; with the true log back, the same disk goes on."""
    users = [mutation(f"many{number}") for number in range(600)]
    others = [mutation(f"many{number}", commits_to=bytes(32)) for number in range(600)]
    end = (EPOCH_MARKER, marker(START + 1).encode())
    forged, true = queue(*batches(users[::-1]), end), queue(*batches(others), end)
    for log in (forged, true):
        process(log, ledger_of(MemoryStore(FAMILIES)))
    mixed = MemoryLog()
    for stream, source in ((NAMES.mutations, forged), (NAMES.heads, true)):
        for event in source.read(stream):
            mixed.append(stream, event.revision - 1, [content_event(stream, event.type, event.data)])
    store = MemoryStore(FAMILIES)
    with pytest.raises(DivergenceError):
        new_signer(mixed, ledger_of(store)).recover()
    new_signer(true, ledger_of(store)).recover()
    ledger = ledger_of(store)
    assert ledger.committed.epoch == 2
    for one in others:
        assert [found for _, found in ledger.history(ledger.committed, one.entry.index)] == [one]


def test_nothing_is_noted_of_an_epoch_that_is_finished() -> None:
    store = MemoryStore(FAMILIES)
    process(queue(*batches(LOST), (EPOCH_MARKER, marker(START + 1).encode())), ledger_of(store))
    assert list(store.scan(AheadTable.FAMILY, AheadTable.PREFIX)) == []
    assert list(begun_and_lost(*batches(LOST)).scan(AheadTable.FAMILY, AheadTable.PREFIX)) != []
