"""The index of decisions against a naive one: of every item the record that counts, in each kind of store."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kt_es.crypto.hashes import log_leaf_hash, sha256
from kt_es.errors import MalformedError, UnverifiedRowError
from kt_es.formats.entries import Mutation
from kt_es.formats.queue import Item, ItemKind, Record, Verdict, decode_records
from kt_es.ledger.decided import find_decision, prove_decision
from kt_es.ledger.decisions import MAX_ROWS, DecisionTable, Kept, SharedDecisionTable
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.replay import Replay
from kt_es.ledger.shared_store import SHARED
from kt_es.ledger.tables import FAMILIES, MUTATIONS_LOG
from kt_es.merkle.log import NodeId
from projections.fsck.examination import fsck
from tests import builders as b
from tests.reference.sharing import SharedStreams, ledger_of
from tests.reference.signed_streams import SignedStreams

ALICE = b.mutation("alice")
BOB = b.mutation("bob")
USERS = ("alice", "bob")


def candidates() -> list[Mutation]:
    """Mutations of two users that follow, contradict and repeat each other, some of them badly signed."""
    made: list[Mutation] = []
    for user in USERS:
        first = b.mutation(user)
        made += [first, b.mutation(user, keys=[b.private_key("other")]), b.next_mutation(user, first)]
        made.append(b.mutation(user, signed_by=[b.private_key("stranger")]))
    return made


CANDIDATES = candidates()
EPOCHS = st.lists(st.lists(st.sampled_from(range(len(CANDIDATES))), max_size=4), min_size=1, max_size=5)


def replayed(streams: SignedStreams, *, slice_size: int = 20_000) -> Ledger:
    ledger = Ledger(MemoryStore(FAMILIES), b.ORIGIN, b.SIGNER_KEY, slice_size)
    ledger.keeps_decisions = True
    for _ in Replay(streams.log, streams.names, ledger).catch_up():
        pass
    return ledger


def naive(streams: SignedStreams) -> dict[bytes, Record]:
    """By the bytes of each item its record: the one that accepted it, or else the last."""
    found: dict[bytes, Record] = {}
    for event in streams.log.read(streams.names.mutations):
        for record in map(Record.decode, decode_records(event.data)[1]):
            content = record.item.content
            if isinstance(content, bytes) and record.item.kind is ItemKind.MUTATION:
                before = found.get(content)
                if before is None or before.verdict is not Verdict.ACCEPTED:
                    found[content] = record
    return found


def check(ledger: Ledger, streams: SignedStreams) -> None:
    expected, committed = naive(streams), ledger.committed
    for made in CANDIDATES:
        record = expected.get(made.encode())
        found = prove_decision(ledger, committed, "text", made.entry_hash, sha256(made.encode()))
        assert (found is None) == (record is None)
        if found is not None and record is not None:
            assert found.answer.record(made.encode()) == record
    for entry_hash in {made.entry_hash for made in CANDIDATES}:
        of_entry = [expected[made.encode()] for made in CANDIDATES if made.encode() in expected]
        of_entry = [one for one in of_entry if _hash_of(one) == entry_hash]
        found_row = find_decision(ledger, committed, entry_hash)
        counts = max(of_entry, key=lambda one: (one.verdict is Verdict.ACCEPTED, one.sequence), default=None)
        assert (None if found_row is None else found_row.sequence) == (counts and counts.sequence)


def _hash_of(record: Record) -> bytes:
    assert isinstance(record.item.content, bytes)
    return Mutation.decode(record.item.content).entry_hash


@settings(max_examples=25, deadline=None)
@given(EPOCHS, st.sampled_from([2, 20_000]), st.booleans())
def test_the_index_finds_what_the_log_says(epochs: list[list[int]], slice_size: int, shared: bool) -> None:
    streams = SharedStreams() if shared else SignedStreams()
    for number, chosen in enumerate(epochs):
        for at in chosen:
            # Beside another mutation, so that a repetition is another event.
            streams.put(CANDIDATES[at], b.mutation(f"user{number}-{streams.log.last_revision('q')}-{at}"))
        streams.epoch()
    if isinstance(streams, SharedStreams):
        adoption = streams.adoption()
        list(adoption.jump())
        check(adoption.ledger, streams)
    else:
        check(replayed(streams, slice_size=slice_size), streams)


def test_rows_of_an_epoch_that_was_never_committed_do_not_count() -> None:
    """Their record numbers are taken by other records later."""
    streams = SignedStreams()
    streams.epoch()
    ledger = replayed(streams)
    size = ledger.committed.log.size
    lost = Record(size, Item(2, 0, ItemKind.MUTATION, ALICE.encode()), Verdict.ACCEPTED)
    table = ledger.tables.decisions
    ledger.store.write([table.put(ALICE.entry_hash, lost, log_leaf_hash(lost.encode()), 2)])
    assert find_decision(ledger, ledger.committed, ALICE.entry_hash) is None
    streams.put(BOB)
    streams.epoch()
    list(Replay(streams.log, streams.names, ledger).catch_up())
    assert find_decision(ledger, ledger.committed, ALICE.entry_hash) is None
    found = find_decision(ledger, ledger.committed, BOB.entry_hash)
    assert found is not None
    assert (found.sequence, found.epoch) == (size, 2)


def test_a_row_that_names_another_epoch_does_not_count() -> None:
    streams = SignedStreams()
    streams.put(ALICE)
    streams.epoch()
    streams.epoch()
    ledger = replayed(streams)
    row = find_decision(ledger, ledger.committed, ALICE.entry_hash)
    assert row is not None
    record = Record(row.sequence, Item(row.revision, 0, ItemKind.MUTATION, ALICE.encode()), row.verdict)
    table = ledger.tables.decisions
    for epoch in (0, 2, 3, 2**63):
        ledger.store.write([table.put(ALICE.entry_hash, record, log_leaf_hash(record.encode()), epoch)])
        assert find_decision(ledger, ledger.committed, ALICE.entry_hash) is None


class TestSharedStore:
    """Rows that others wrote are compared with the log, and the log with the signed head."""

    @pytest.fixture
    def streams(self) -> SharedStreams:
        streams = SharedStreams()
        streams.put(ALICE)
        streams.put(BOB)
        streams.epoch()
        return streams

    def ledger(self, streams: SharedStreams) -> Ledger:
        adoption = streams.adoption()
        list(adoption.jump())
        return adoption.ledger

    def test_a_replica_that_lags_is_asked_again(self, streams: SharedStreams) -> None:
        ledger = self.ledger(streams)
        streams.replicas.lag("nodes", "decisions", "heads")
        found = find_decision(ledger, ledger.committed, ALICE.entry_hash)
        assert found is not None

    def test_a_row_about_another_record_does_not_count(self, streams: SharedStreams) -> None:
        ledger = self.ledger(streams)
        ((key, value), *_) = [
            row for row in streams.replicas.rows("decisions").items() if row[0].startswith(ALICE.entry_hash)
        ]
        for number in (2, 99):
            changed = key[:-16] + number.to_bytes(8) + key[-8:]
            streams.replicas.write([("decisions", key, None), ("decisions", changed, value)])
            assert find_decision(ledger, ledger.committed, ALICE.entry_hash) is None

    def test_a_row_of_another_form_is_none(self, streams: SharedStreams) -> None:
        ledger = self.ledger(streams)
        for key, value in streams.replicas.rows("decisions").items():
            streams.replicas.write([("decisions", key, value[:-1])])
        assert find_decision(ledger, ledger.committed, ALICE.entry_hash) is None
        for key, value in streams.replicas.rows("decisions").items():
            streams.replicas.write([("decisions", key, value + b"\x63")])
        assert find_decision(ledger, ledger.committed, ALICE.entry_hash) is None

    def test_a_wrong_node_is_an_outage(self, streams: SharedStreams) -> None:
        ledger = self.ledger(streams)
        row = find_decision(ledger, ledger.committed, ALICE.entry_hash)
        assert row is not None
        other = self.ledger(streams)
        nodes = other.tables.nodes
        streams.replicas.write(nodes.put(MUTATIONS_LOG, [(NodeId(0, row.sequence), bytes(32))]))
        with pytest.raises(UnverifiedRowError):
            find_decision(other, other.committed, ALICE.entry_hash)

    def test_a_store_of_an_earlier_version_says_from_where_on_it_knows(self, streams: SharedStreams) -> None:
        for key in streams.replicas.rows("decisions"):
            streams.replicas.write([("decisions", key, None)])
        about = [key for key in streams.replicas.rows("about") if key.startswith(b"decided")]
        streams.replicas.write([("about", key, None) for key in about])
        before = streams.ledger.committed.log.size
        streams.put(b.mutation("carol"))
        streams.epoch()
        ledger = ledger_of(streams.replicas)
        assert ledger.tables.decisions.kept() == Kept(before, streams.ledger.committed.log.size)


def test_the_keys_of_both_kinds_of_store() -> None:
    record = Record(258, Item(3, 1, ItemKind.MUTATION, ALICE.encode()), Verdict.STALE)
    key = ALICE.entry_hash + b"\x01" + sha256(ALICE.encode())[:8] + bytes(6) + b"\x01\x02" + bytes(range(8))
    value = bytes(7) + b"\x04" + bytes(7) + b"\x03" + bytes(7) + b"\x01" + b"\x0b"
    args = (ALICE.entry_hash, record, bytes(range(32)), 4)
    assert DecisionTable(MemoryStore(FAMILIES)).put(*args) == ("meta", b"decided " + key, value)
    shared = SharedDecisionTable(MemoryStore(SHARED))
    assert shared.put(*args) == ("decisions", key, value)
    assert shared.put_kept(Kept(0, 9)) == [("about", b"decided until", bytes(7) + b"\x09")]
    assert len(shared.put_kept(Kept(5, 9))) == 2
    own = DecisionTable(MemoryStore(FAMILIES))
    own.store.write(own.put_kept(Kept(5, 9)))
    assert own.kept() == Kept(5, 9)


def test_a_flood_of_refusals_hides_no_acceptance() -> None:
    table = DecisionTable(MemoryStore(FAMILIES))
    for number in range(3 * MAX_ROWS):
        verdict = Verdict.ACCEPTED if number == MAX_ROWS else Verdict.STALE
        record = Record(number, Item(number, 0, ItemKind.MUTATION, ALICE.encode()), verdict)
        table.store.write([table.put(ALICE.entry_hash, record, bytes(32), 1)])
    for item in (None, sha256(ALICE.encode())):
        found = list(table.find(ALICE.entry_hash, item))
        assert (found[0].verdict, found[0].sequence) == (Verdict.ACCEPTED, MAX_ROWS)
        assert [one.sequence for one in found[1:]] == list(range(3 * MAX_ROWS - 1, 2 * MAX_ROWS - 1, -1))


def test_kept_is_what_was_added_without_a_gap() -> None:
    assert Kept().extended(0, 5) == Kept(0, 5)
    assert Kept(0, 5).extended(5, 9) == Kept(0, 9)
    assert Kept(0, 5).extended(7, 9) == Kept(7, 9)
    # An epoch that was given up had more records than the one after it.
    assert Kept(0, 9).extended(5, 7) == Kept(0, 9)


def test_garbage_has_no_row() -> None:
    streams = SignedStreams()
    streams.queue("Mutations", b"\xff")
    streams.epoch()
    ledger = replayed(streams)
    assert list(ledger.store.scan("meta", b"decided ")) == []
    with pytest.raises(MalformedError):
        Mutation.decode(b"\xff")


class TestFsck:
    """``kt fsck`` compares the index with the entries and the log."""

    @pytest.fixture
    def ledger(self) -> Ledger:
        streams = SignedStreams()
        streams.put(ALICE, BOB)
        streams.epoch()
        return replayed(streams)

    def found(self, ledger: Ledger) -> list[str]:
        return fsck(ledger.store, b.ORIGIN, b.SIGNER_KEY).differences

    def test_a_good_index_has_all_accepted_entries(self, ledger: Ledger) -> None:
        report = fsck(ledger.store, b.ORIGIN, b.SIGNER_KEY)
        assert (report.differences, report.counts["decisions"]) == ([], 2)

    def test_each_changed_byte_of_a_row_is_found(self, ledger: Ledger) -> None:
        for key, value in list(ledger.store.scan("meta", b"decided ")):
            for at in range(len(value)):
                wrong = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
                ledger.store.write([("meta", key, wrong)])
                assert any("index of decisions lacks record" in one for one in self.found(ledger)), at
            ledger.store.write([("meta", key, None)])
            assert any("index of decisions lacks record" in one for one in self.found(ledger))
            ledger.store.write([("meta", key, value)])
        assert self.found(ledger) == []

    def test_what_the_index_never_had_is_no_damage(self, ledger: Ledger) -> None:
        ledger.store.write([("meta", key, None) for key, _ in list(ledger.store.scan("meta", b"decided"))])
        assert self.found(ledger) == []
