"""Lies of a shared store: nobody answers or signs from them, and everything goes on once they are mended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kt_es.errors import DivergenceError, EquivocationError, UnavailableError, UnverifiedRowError
from kt_es.eventstore.streams import content_event
from kt_es.formats.heads import HeadEvent
from kt_es.formats.queue import CONFIG, Record, decode_records, encode_records
from kt_es.ledger.adoption import Adoption
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.openings import Missing, read_opening
from kt_es.ledger.proofs import prove_head, prove_smh
from kt_es.ledger.retention import check_epoch
from kt_es.ledger.shared_store import LOCAL
from kt_es.ledger.tables import HEADS_LOG, MUTATIONS_LOG
from kt_es.merkle.map import leaf_ref
from kt_es.merkle.pages import LEAF_SIZE, decode_page
from signer.patrol import Patrol
from tests import builders as b
from tests.reference.forgeries import another_head
from tests.reference.frontends import front, until
from tests.reference.lies import (
    LIES,
    OTHER_ROOT,
    are_true,
    gone,
    mend_of,
    nodes_of,
    other_checkpoints,
    rows,
)
from tests.reference.memory_log import MemoryLog
from tests.reference.sharing import Replicas, SharedStreams, ledger_of
from tests.reference.signing import LIMITS, NAMES, check_logs, data_of, new_signer
from tests.reference.true_answers import ORIGINAL, TRUTH, USERS, answers, copied, running


@pytest.mark.parametrize("name", LIES)
def test_no_front_end_answers_from_a_lie_and_all_is_well_once_it_is_mended(name: str) -> None:
    _, replicas = copied()
    changes = LIES[name](replicas)
    assert changes
    mend = mend_of(replicas, changes)
    replicas.write(changes)
    made = running(replicas)
    with front(made.streams, made=made, wait=False):
        until(lambda: made.caught_up() or made.ledger.committed.epoch == 0)
        for got, true in zip(answers(made), TRUTH, strict=True):
            assert got == true or got[0] == 503, (got, true)
        replicas.write(mend)
        # Otherwise the bound is read again with the next epoch.
        made.ledger.oldest = 1
        until(lambda: made.caught_up() and are_true(made))
        opening = read_opening(made.streams.log.read(NAMES.openings(b.index("alice"))), held_by_alice(), bool)
        assert not isinstance(opening, Missing)
    assert made.errors == []


def held_by_alice() -> bytes:
    return b.next_mutation("alice", b.next_mutation("alice", b.mutation("alice"))).entry_hash


@pytest.mark.parametrize("name", LIES)
def test_a_lie_of_one_replica_costs_a_second_read(name: str) -> None:
    _, replicas = copied()
    if name == "everything is pruned":
        replicas.write([("about", b"oldest", (1).to_bytes(8))])
    for family, key, value in LIES[name](replicas):
        replicas.first[family, key] = value
    made = running(replicas)
    with front(made.streams, made=made):
        assert list(answers(made)) == TRUTH
    assert made.errors == []


@pytest.mark.parametrize("family", ["pages", "entries", "nodes", "heads", "states", "configs", "erasures"])
def test_a_replica_that_lags_costs_a_second_read(family: str) -> None:
    _, replicas = copied()
    replicas.lag(family)
    made = running(replicas)
    with front(made.streams, made=made):
        assert list(answers(made)) == TRUTH
    assert made.errors == []


def sign(log: MemoryLog, ledger: Ledger) -> None:
    """Decide what is in the queue and publish an epoch of it, as a signer does that has just started."""
    signer = new_signer(log, ledger, replace(LIMITS, watchdog=3600))
    signer.recover()
    signer._patrol.step()
    signer._last_marker_at -= 3600
    for _ in range(4):
        signer.is_behind = True
        signer.advance()


def submit_more(log: MemoryLog) -> None:
    """Something that reads and changes all parts of the map."""
    streams = SharedStreams(log)
    streams.log = log
    streams.put(*(b.next_mutation(user, b.mutation(user)) for user in USERS[1:]))
    streams.put(b.mutation("carol"))


@pytest.mark.parametrize("knows", [True, False], ids=["own state", "new"])
@pytest.mark.parametrize("name", LIES)
def test_no_signer_publishes_anything_from_a_lie(name: str, knows: bool) -> None:
    log, replicas = copied()
    local = MemoryStore(LOCAL)
    if knows:
        sign_on = ledger_of(replicas, local)
        new_signer(log, sign_on).recover()
    changes = LIES[name](replicas)
    mend = mend_of(replicas, changes)
    replicas.write(changes)
    submit_more(log)
    published = len(data_of(log, NAMES.heads))
    try:
        sign(log, ledger_of(replicas, local))
        assert len(data_of(log, NAMES.heads)) > published
    except (UnavailableError, UnverifiedRowError):
        # It begins again, until the row is mended.
        assert len(data_of(log, NAMES.heads)) == published
    check_logs(log)
    replicas.write(mend)
    if len(data_of(log, NAMES.heads)) == published:
        sign(log, ledger_of(replicas, local))
    assert len(data_of(log, NAMES.heads)) > published
    assert check_logs(log).committed.root.size == ORIGINAL.ledger.committed.root.size + 1


@pytest.mark.parametrize("stream", [NAMES.mutations, NAMES.heads])
@pytest.mark.parametrize("revision", range(3))
@pytest.mark.parametrize("is_lost", [False, True], ids=["good store", "lost leaves"])
def test_a_patrol_distinguishes_a_changed_log_from_a_lying_store(
    stream: str, revision: int, is_lost: bool
) -> None:
    log, replicas = copied()
    ledger = following(replicas)
    Patrol(log, NAMES, ledger).step()
    if is_lost:
        replicas.write(nodes_of(HEADS_LOG, 0, None)(replicas) + nodes_of(MUTATIONS_LOG, 0, None)(replicas))
        replicas.write(rows("heads", gone)(replicas))
        ledger = following(replicas)
    changed = MemoryLog()
    for event in log._all:
        data = event.data
        if (event.stream, event.revision) == (stream, revision):
            data = another_head(data, OTHER_ROOT) if stream == NAMES.heads else other_records(data)
        changed.append(event.stream, event.revision - 1, [content_event(event.stream, event.type, data)])
    with pytest.raises((DivergenceError, EquivocationError)) as caught:
        Patrol(changed, NAMES, ledger).step()
    assert isinstance(caught.value, UnverifiedRowError) is is_lost


@pytest.mark.parametrize("lie", ["no heads", "damaged heads", "heads of other epochs"])
def test_a_patrol_explains_how_heads_come_back_that_the_store_lost(lie: str) -> None:
    log, replicas = copied()
    replicas.write(LIES[lie](replicas))
    with pytest.raises(
        UnverifiedRowError, match=r"(no|a wrong) head of epoch 1: `kt store rebuild` fills it from the log"
    ):
        Patrol(log, NAMES, following(replicas)).step()


@pytest.mark.parametrize("is_lost", [False, True], ids=["good store", "lost heads"])
@pytest.mark.parametrize("field", ["heads_checkpoint", "mutations_checkpoint"])
def test_a_patrol_does_not_blame_the_store_for_a_changed_checkpoint(field: str, is_lost: bool) -> None:
    """The log of heads does not cover the checkpoints beside the head."""
    log, replicas = copied()
    if is_lost:
        replicas.write(LIES["no heads"](replicas))
    data = data_of(log, NAMES.heads)[1][1]
    events = HeadEvent.decode(data), HeadEvent.decode(data_of(log, NAMES.heads)[0][1])
    changed = replace(events[0], **{field: getattr(events[1], field)}).encode()
    log._streams[NAMES.heads][1] = replace(log._streams[NAMES.heads][1], data=changed)
    patrol = Patrol(log, NAMES, following(replicas), start=1)
    with pytest.raises(DivergenceError, match="has another head of epoch 2") as caught:
        patrol.step()
    assert not isinstance(caught.value, UnverifiedRowError)


@pytest.mark.parametrize("lie", ["no configs", "damaged configs", "configs whose signatures are wrong"])
def test_a_signer_explains_how_configs_come_back_that_the_store_lost(lie: str) -> None:
    log, replicas = copied()
    local = MemoryStore(LOCAL)
    new_signer(log, ledger_of(replicas, local)).recover()
    replicas.write(LIES[lie](replicas))
    with pytest.raises(
        UnverifiedRowError, match=r"the shared store lacks configs.*`kt store rebuild` fills it from the log"
    ):
        new_signer(log, ledger_of(replicas, local))


def other_records(data: bytes) -> bytes:
    first, records = decode_records(data)
    record = Record.decode(records[-1])
    changed = replace(record, item=replace(record.item, revision=record.item.revision + 1))
    return encode_records(first, [*records[:-1], changed.encode()])


def following(replicas: Replicas) -> Ledger:
    ledger = ledger_of(replicas)
    list(Adoption(ORIGINAL.log, ORIGINAL.names, ledger).jump())
    return ledger


@pytest.mark.parametrize("family", ["pages", "entries", "heads", "nodes"])
def test_a_check_of_an_epoch_believes_no_row(family: str) -> None:
    _, replicas = copied()
    for key in replicas.rows(family):
        replicas.write([(family, key, b"?")])
    problems: list[str] = []
    try:
        ledger = following(replicas)
        check_epoch(ledger, 2, problems.append)
    except UnverifiedRowError as error:
        problems.append(str(error))
    assert problems


def test_leaves_of_the_map_are_where_the_pages_refer_to() -> None:
    """What ``later_page`` and ``moved_entry`` change: versions, which no hash covers."""
    slots = [
        slot
        for key, value in ORIGINAL.replicas.rows("pages").items()
        for slot in decode_page(key, value)
        if slot is not None and len(slot) == LEAF_SIZE
    ]
    assert {leaf_ref(slot).version for slot in slots} == {1, 2, 3, 5}


def test_a_head_is_proven_with_the_key_that_signed_it() -> None:
    """Its config and its signer key were replaced since then, and its epoch is not the newest any more."""
    streams = SharedStreams()
    streams.put_user("alice")
    streams.epoch()
    keys = [b.private_key("successor")]
    successor = b.config(signer_keys=keys, previous=b.signed_config().config.hash)
    streams.queue(CONFIG, b.signed_config(successor, [b.SIGNER, *keys]).encode())
    streams.epoch()
    streams.use_key(keys[0])
    streams.epoch()
    committed = streams.ledger.committed
    ledger = streams.adoption().ledger
    for epoch in (1, 2, 3):
        event, _ = prove_head(ledger, committed, epoch)
        assert event == HeadEvent.decode(data_of(streams.log, NAMES.heads)[epoch - 1][1])
    lie = rows("heads", other_checkpoints("mutations_checkpoint"))(streams.replicas)
    streams.replicas.write(lie)
    for epoch in (1, 2, 3):
        assert prove_smh(ledger, committed, epoch)[0]
        with pytest.raises(UnverifiedRowError, match="a wrong head"):
            prove_head(ledger, committed, epoch)
