"""The signer against what logs and subscriptions do: whatever happens, both logs are the same in the end."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from kt_es.errors import ConfigError, DivergenceError, EquivocationError, RollbackError
from kt_es.eventstore.streams import ANY, content_event
from kt_es.formats.heads import HeadEvent, SignedMapHead
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.tables import FAMILIES
from signer.keys import KeyRing
from signer.loop import Signer
from tests.builders import config, mutation, next_mutation, private_key
from tests.reference.memory_log import MemoryLog
from tests.reference.scripted_groups import Delivery, ScriptedLog, doubled, failing, shuffled, silent
from tests.reference.signing import (
    LIMITS,
    NAMES,
    check_logs,
    data_of,
    effects,
    heads,
    new_ledger,
    new_log,
    new_signer,
    records,
    signing,
    submit,
    verdicts,
    wait_decided,
    wait_until,
)

USERS = [f"user{number}" for number in range(60)]


def submit_all(log: MemoryLog) -> None:
    for start in range(0, len(USERS), 4):
        submit(log, [mutation(user) for user in USERS[start : start + 4]])


def test_every_submission_is_decided_once_and_sealed_by_a_head() -> None:
    log, ledger = new_log(), new_ledger()
    with signing(log, ledger) as ended:
        submit_all(log)
        wait_decided(log)
    assert not ended
    assert verdicts(log) == ["accepted"] * len(USERS)
    assert heads(log)[-1].map_size == len(USERS)
    assert check_logs(log).committed.root == ledger.committed.root


def test_duplicates_succeed_within_an_epoch_and_fail_across_epochs() -> None:
    log, ledger = new_log(), new_ledger()
    first = mutation("alice")
    submit(log, [first, first])
    with signing(log, ledger):
        wait_decided(log)
        submit(log, [first, next_mutation("alice", first)])
        wait_decided(log)
    assert verdicts(log) == ["accepted", "duplicate", "replay", "accepted"]


def test_bad_items_get_their_verdicts_and_the_signer_goes_on() -> None:
    log, ledger = new_log(), new_ledger()
    good = mutation("alice")
    log.append(NAMES.queue, ANY, [content_event(NAMES.queue, "Mutations", b"\xff")])
    log.append(NAMES.queue, ANY, [content_event(NAMES.queue, "Surprise", b"x")])
    log.append(NAMES.queue, ANY, [content_event(NAMES.queue, "EpochMarker", b"\x00")])
    log.append(NAMES.queue, ANY, [content_event(NAMES.queue, "Mutations", bytes(300 * 1024))])
    submit(log, [b"", bytes(20_000), mutation("bob", signed_by=[private_key("eve")]), good])
    with signing(log, ledger) as ended:
        wait_decided(log)
    assert not ended
    assert verdicts(log) == [
        *("malformed", "unknown", "malformed", "oversize"),
        *("malformed", "oversize", "unauthorized", "accepted"),
    ]
    check_logs(log)


def test_silence_of_the_submitters_makes_empty_epochs() -> None:
    log, ledger = new_log(max_interval=40), new_ledger()
    with signing(log, ledger):
        wait_until(lambda: len(heads(log)) >= 4, "there are four heads")
    assert heads(log)[-1].map_size == 0
    timestamps = [head.timestamp for head in heads(log)]
    assert timestamps == sorted(set(timestamps))
    check_logs(log)


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_broken_appends_are_mended(written: bool, count: int) -> None:
    log, ledger = new_log(), new_ledger()
    submit_all(log)
    log.break_appends(count, written=written)
    with signing(log, ledger) as ended:
        wait_until(lambda: heads(log) != [] and heads(log)[-1].map_size == len(USERS), "all users stand")
    assert not ended
    check_logs(log)


@pytest.mark.parametrize("delivery", [doubled, silent, shuffled(random.Random(7))])
def test_what_a_subscription_does_changes_nothing(delivery: Delivery) -> None:
    log, ledger = new_log(), new_ledger()
    scripted = ScriptedLog(log, delivery)
    with signing(scripted, ledger) as ended:  # type: ignore[arg-type]
        submit_all(log)
        wait_decided(log)
    assert not ended
    assert verdicts(log) == ["accepted"] * len(USERS)
    assert all(revision < ledger.committed.queue_next for revision in scripted.acknowledged)
    assert scripted.acknowledged
    check_logs(log)


def test_a_subscription_that_fails_in_a_way_unknown_is_opened_again() -> None:
    log, ledger = new_log(), new_ledger()
    scripted = ScriptedLog(log, failing())
    # The watchdog would take a minute: it is not silence by which this is found.
    with signing(scripted, ledger, replace(LIMITS, watchdog=60.0)) as ended:  # type: ignore[arg-type]
        submit_all(log)
        wait_until(lambda: scripted.joined >= 2, "the place is taken anew")
        wait_decided(log)
    assert not ended
    check_logs(log)


def test_an_outage_in_the_middle_is_waited_out() -> None:
    log, ledger = new_log(), new_ledger()
    connections = []

    def connect() -> MemoryLog:
        connections.append(log.away)
        return log

    with signing(log, ledger, connect=connect) as ended:
        submit(log, [mutation("alice")])
        wait_decided(log)
        log.away = True
        wait_until(lambda: True in connections, "the signer tries again while the log is away")
        log.away = False
        submit(log, [mutation("bob")])
        wait_decided(log)
    assert not ended
    assert heads(log)[-1].map_size == 2
    check_logs(log)


def test_a_signer_without_its_disk_comes_to_the_same_and_goes_on() -> None:
    log, first = new_log(), new_ledger()
    with signing(log, first):
        submit(log, [mutation("alice")])
        wait_decided(log)
    before = data_of(log, NAMES.heads)
    again = new_ledger()
    with signing(log, again):
        submit(log, [mutation("bob")])
        wait_decided(log)
    assert data_of(log, NAMES.heads)[: len(before)] == before
    assert heads(log)[-1].map_size == 2
    check_logs(log)


def test_a_crash_between_head_and_commit_is_mended_from_the_logs() -> None:
    log = new_log()
    with signing(log, new_ledger()):
        submit(log, [mutation("alice")])
        wait_decided(log)
    # The ledger of a signer that never committed what it had published.
    late = new_ledger()
    new_signer(log, late).recover()
    assert late.committed.epoch == len(heads(log))


def test_a_standby_waits_and_takes_over() -> None:
    log, active, standby = new_log(), new_ledger(), new_ledger()
    with signing(log, standby) as standby_ended:
        wait_until(lambda: len(heads(log)) > 0, "somebody is active")
        with signing(log, active):
            submit(log, [mutation("alice")])
            wait_decided(log)
            wait_until(lambda: active.committed.epoch == len(heads(log)), "the standby follows the logs")
    with signing(log, active):
        submit(log, [mutation("bob")])
        wait_decided(log)
    assert not standby_ended
    check_logs(log)


def test_two_signers_at_once_write_the_same_bytes() -> None:
    """No lock at all: both process the same queue; the second finds everything written already."""
    log = new_log()
    with signing(log, new_ledger()):
        submit_all(log)
        wait_decided(log)
    before = data_of(log, NAMES.mutations), data_of(log, NAMES.heads)
    second = new_signer(log, new_ledger())
    for event in log.read(NAMES.queue):
        second._process(event)
    assert (data_of(log, NAMES.mutations), data_of(log, NAMES.heads)) == before


def test_another_head_in_the_log_stops_it() -> None:
    log, store = new_log(), MemoryStore(FAMILIES)
    with signing(log, new_ledger(store)):
        submit(log, [mutation("alice")])
        wait_decided(log)
    other = MemoryLog()
    for stream in (NAMES.queue, NAMES.mutations):
        for event in log.read(stream):
            other.append(stream, ANY, [content_event(stream, event.type, event.data)])
    for event in log.read(NAMES.heads):
        head_event = HeadEvent.decode(event.data)
        smh = SignedMapHead.decode(head_event.smh_bytes)
        changed = SignedMapHead.sign(replace(smh.head, map_size=7), private_key("signer"))
        data = replace(head_event, smh_bytes=changed.encode()).encode()
        other.append(NAMES.heads, ANY, [content_event(NAMES.heads, event.type, data)])
    with pytest.raises(EquivocationError, match="another signed head of epoch"):
        new_signer(other, new_ledger(store)).recover()
    with pytest.raises(DivergenceError, match="map_size is 7"):
        new_signer(other, new_ledger()).recover()


def test_a_log_that_lost_its_heads_stops_it() -> None:
    log, store = new_log(), MemoryStore(FAMILIES)
    with signing(log, new_ledger(store)):
        wait_decided(log)
    with pytest.raises(RollbackError, match="has no head of epoch"):
        new_signer(new_log(), new_ledger(store)).recover()


def test_a_queue_of_another_directory_stops_it() -> None:
    log = MemoryLog()
    submit(log, [mutation("alice")])
    with signing(log, new_ledger()) as ended:
        wait_until(lambda: bool(ended), "the signer refuses")
    assert isinstance(ended[0], DivergenceError)
    assert records(log) == []


def test_nothing_is_signed_by_another_key_than_the_configs() -> None:
    log = new_log()
    outside = effects(lambda: log)
    signer = Signer(
        log, NAMES, new_ledger(), KeyRing([private_key("eve")]), effects=outside, limits=lambda: LIMITS
    )
    signer._process(next(iter(log.read(NAMES.queue))))
    signer._last_marker_at -= 60
    with pytest.raises(ConfigError, match=config().signer_key.id.hex()):
        signer._insert_marker()
    assert heads(log) == []
