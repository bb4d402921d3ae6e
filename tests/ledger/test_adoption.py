"""Adoption: epochs are taken from a shared store as their signed heads say, or not at all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kt_es.errors import DivergenceError, EquivocationError, RollbackError, StoreAwayError, UnverifiedRowError
from kt_es.eventstore.streams import ANY, Event, content_event
from kt_es.formats.heads import MAP_HEAD
from kt_es.formats.queue import Record, decode_records, encode_records
from kt_es.ledger.adoption import JUMP, Adoption, following
from kt_es.ledger.anchor import check_commit
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.replay import Replay
from kt_es.ledger.retention import prune
from kt_es.ledger.shared_store import LOCAL
from tests import builders as b
from tests.reference.forgeries import another_head
from tests.reference.memory_log import MemoryLog
from tests.reference.sharing import SharedStreams, ledger_of
from tests.reference.signing import new_ledger


def signed(epochs: int) -> SharedStreams:
    """A user of its own in each epoch."""
    streams = SharedStreams()
    for number in range(epochs):
        streams.put_user(f"user{number}")
        streams.epoch()
    return streams


def jumped(streams: SharedStreams, local: MemoryStore | None = None) -> Adoption:
    adoption = streams.adoption(local)
    list(adoption.jump())
    return adoption


def heads_of(streams: SharedStreams, start: int = 0) -> list[Event]:
    return list(streams.log.read(streams.names.heads, start))


def rewritten(streams: SharedStreams, stream: str, revision: int, data: bytes | None) -> MemoryLog:
    """The log with other ``data`` at one revision of ``stream``; None ends the stream before it."""
    log = MemoryLog()
    for name in (streams.names.queue, streams.names.mutations, streams.names.heads):
        for event in streams.log.read(name):
            here = (name, event.revision) == (stream, revision)
            if here and data is None:
                break
            content = data if here and data is not None else event.data
            log.append(name, ANY, [content_event(name, event.type, content)])
    return log


ANOTHER = {"map_root": b.seed("another")}


def test_a_shared_store_is_adopted_from_and_every_other_is_replayed_into() -> None:
    streams = signed(1)
    ledger = ledger_of(streams.replicas)
    assert isinstance(following(streams.log, streams.names, ledger), Adoption)
    assert isinstance(following(streams.log, streams.names, new_ledger()), Replay)
    with pytest.raises(TypeError):
        Adoption(streams.log, streams.names, new_ledger())


def test_who_has_nothing_begins_with_the_newest_epoch() -> None:
    streams = signed(3)
    adoption = streams.adoption()
    assert [replayed.head.epoch for replayed in adoption.jump()] == [3]
    assert adoption.ledger.committed == streams.ledger.committed
    check_commit(adoption.ledger)
    assert list(adoption.jump()) == []


def test_before_the_first_epoch_there_is_nothing_to_adopt() -> None:
    streams = SharedStreams()
    adoption = streams.adoption()
    assert list(adoption.jump()) == list(adoption.catch_up()) == []
    assert adoption.ledger.committed.epoch == 0
    streams.put_user("alice")
    streams.epoch()
    assert [replayed.head.epoch for replayed in adoption.catch_up()] == [1]


@pytest.mark.parametrize(("gap", "jumps"), [(1, False), (JUMP, False), (JUMP + 1, True)])
def test_a_gap_of_more_epochs_than_that_is_jumped(gap: int, jumps: bool) -> None:
    streams = signed(1)
    adoption = jumped(streams)
    for _ in range(gap):
        streams.epoch()
    assert [replayed.head.epoch for replayed in adoption.jump()] == ([1 + gap] if jumps else [])
    for event in heads_of(streams, adoption.ledger.committed.epoch):
        adoption.advance(event)
    assert adoption.ledger.committed == streams.ledger.committed


def test_epochs_that_were_pruned_meanwhile_are_jumped() -> None:
    streams = signed(2)
    adoption = jumped(streams)
    for number in range(3):
        streams.put_user(f"later{number}")
        streams.epoch()
    prune(streams.ledger, 2)
    with pytest.raises(UnverifiedRowError, match="no good state of epoch 3"):
        adoption.advance(heads_of(streams, 2)[0])
    assert [replayed.head.epoch for replayed in adoption.jump()] == [5]
    assert adoption.ledger.oldest == 4


def test_each_record_of_the_next_epoch_is_observed_and_none_of_those_that_are_skipped() -> None:
    streams = signed(1)
    observed: list[Record] = []
    ledger = ledger_of(streams.replicas)
    adoption = Adoption(streams.log, streams.names, ledger, observed.append)
    list(adoption.jump())
    assert observed == []
    made = streams.put_user("bob")
    streams.epoch()
    adoption.advance(heads_of(streams, 1)[0])
    contents = [record.item.content for record in observed]
    assert contents[0] == made.encode()
    assert observed[-1].closes_epoch
    assert [record.sequence for record in observed] == list(range(3, 3 + len(observed)))


def test_catching_up_takes_the_newest_epoch_and_skips_those_between() -> None:
    streams = signed(1)
    adoption = jumped(streams)
    for _ in range(3):
        streams.epoch()
    assert [replayed.head.epoch for replayed in adoption.catch_up()] == [4]
    assert list(adoption.catch_up()) == []


def test_a_head_that_is_not_the_next_one_is_refused() -> None:
    streams = signed(3)
    adoption = streams.adoption()
    with pytest.raises(DivergenceError, match="head of epoch 1: the stream has revision 2, not 0"):
        adoption.advance(heads_of(streams)[2])
    event = heads_of(streams)[0]
    with pytest.raises(DivergenceError, match="head of epoch 1: the stream has 'Other', not a map head"):
        adoption.advance(replace(event, type="Other"))
    with pytest.raises(DivergenceError, match="head of epoch 1: "):
        adoption.advance(replace(event, data=event.data[:-1]))
    with pytest.raises(DivergenceError, match="head of epoch 2: it is at revision 0"):
        adoption.advance(replace(event, data=heads_of(streams)[1].data))
    assert adoption.ledger.committed.epoch == 0


def test_a_log_that_lost_the_adopted_head_is_recognized() -> None:
    streams = signed(3)
    ledger = jumped(streams).ledger
    log = rewritten(streams, streams.names.heads, 1, None)
    with pytest.raises(RollbackError, match="it ends with epoch 1"):
        list(Adoption(log, streams.names, ledger).catch_up())
    assert ledger.committed.epoch == 3


@pytest.mark.parametrize(
    ("key", "error"), [("signer", EquivocationError), ("eve", DivergenceError)], ids=["signed", "forged"]
)
def test_another_head_in_the_place_of_the_adopted_one_is_recognized(
    key: str, error: type[DivergenceError]
) -> None:
    streams = signed(2)
    ledger = jumped(streams).ledger
    data = another_head(heads_of(streams)[1].data, ANOTHER, b.private_key(key))
    log = rewritten(streams, streams.names.heads, 1, data)
    with pytest.raises(error, match="another"):
        list(Adoption(log, streams.names, ledger).catch_up())


def test_a_head_whose_log_of_heads_is_another_one_is_refused() -> None:
    streams = signed(1)
    adoption = jumped(streams)
    for _ in range(2):
        streams.epoch()
    log = rewritten(streams, streams.names.heads, 1, another_head(heads_of(streams)[1].data, ANOTHER))
    with pytest.raises(DivergenceError, match="head of epoch 3: its log of heads does not continue"):
        list(Adoption(log, streams.names, adoption.ledger).catch_up())
    assert adoption.ledger.committed.epoch == 1


def test_a_forged_head_finds_no_state() -> None:
    streams = signed(2)
    log = rewritten(streams, streams.names.heads, 1, another_head(heads_of(streams)[1].data, ANOTHER))
    with pytest.raises(UnverifiedRowError, match="no good state of epoch 2: it is missing"):
        list(Adoption(log, streams.names, ledger_of(streams.replicas)).jump())


@pytest.mark.parametrize("what", ["another", "fewer", "none"])
def test_records_that_are_not_those_of_the_head_are_refused(what: str) -> None:
    streams = signed(1)
    adoption = jumped(streams)
    streams.put_user("bob")
    streams.epoch()
    revision = streams.log.last_revision(streams.names.mutations)
    (event,) = streams.log.read(streams.names.mutations, revision)
    first, records = decode_records(event.data)
    changed = {
        "another": encode_records(first, [Record.decode(records[1]).encode(), *records[1:]]),
        "fewer": encode_records(first, records[:-1]),
        "none": None,
    }
    log = rewritten(streams, streams.names.mutations, revision, changed[what])
    with pytest.raises(DivergenceError):
        Adoption(log, streams.names, adoption.ledger).advance(heads_of(streams, 1)[0])
    assert adoption.ledger.committed.epoch == 1


def test_erasures_are_noticed_on_the_way_and_in_what_was_skipped() -> None:
    streams = signed(1)
    follower = jumped(streams)
    made = streams.put_user("bob")
    streams.epoch()
    streams.erase(made)
    streams.epoch()
    assert not follower.ledger.has_erasures
    for event in heads_of(streams, 1):
        follower.advance(event)
    assert (follower.ledger.has_erasures, follower.ledger.last_erasure) == (True, 3)
    late = jumped(streams)
    assert (late.ledger.has_erasures, late.ledger.last_erasure) == (True, 3)
    # What a jump has skipped is swept once more.
    for _ in range(JUMP + 1):
        streams.epoch()
    list(late.jump())
    assert late.ledger.last_erasure == late.ledger.committed.epoch == 4 + JUMP


def test_who_has_a_disk_goes_on_from_its_last_epoch() -> None:
    streams, local = signed(2), MemoryStore(LOCAL)
    jumped(streams, local)
    streams.epoch()
    again = streams.adoption(local)
    assert again.ledger.committed.epoch == 2
    check_commit(again.ledger)
    again.advance(heads_of(streams, 2)[0])
    assert again.ledger.committed == streams.ledger.committed


def test_a_signer_writes_what_the_last_one_left_out() -> None:
    """The rows that follow from a head, which is published before them."""
    streams = signed(2)
    for family in ("heads", "nodes"):
        for key in streams.replicas.rows(family):
            streams.replicas.majority.write([(family, key, None)])
    thin = streams.adoption()
    list(thin.jump())
    # A front end has them in memory, and writes nothing.
    assert thin.ledger.tables.heads.event(2)
    assert streams.replicas.rows("heads") == {}
    list(streams.adoption(completes=True).jump())
    assert list(streams.replicas.rows("heads")) == [(2).to_bytes(8)]
    assert streams.replicas.rows("nodes")


def test_nothing_is_adopted_while_the_store_is_away() -> None:
    streams = signed(2)
    adoption = streams.adoption()
    streams.replicas.away = True
    with pytest.raises(StoreAwayError, match="no node of the shared store answers"):
        list(adoption.jump())
    streams.replicas.away = False
    assert [replayed.head.epoch for replayed in adoption.jump()] == [2]


def test_the_first_levels_of_the_map_are_read_ahead() -> None:
    streams = SharedStreams()
    for number in range(40):
        streams.put_user(f"user{number}")
    streams.epoch()
    ledger = jumped(streams).ledger
    streams.replicas.asked.clear()
    for number in range(40):
        assert ledger.map.lookup(ledger.committed.root, b.index(f"user{number}"))
    assert {family for family, _, _ in streams.replicas.asked} <= {"pages"}
    assert not [key for _, key, _ in streams.replicas.asked if key[0] < 3]


def test_the_type_of_heads_is_the_one_that_is_published() -> None:
    assert {event.type for event in heads_of(signed(1))} == {MAP_HEAD}
