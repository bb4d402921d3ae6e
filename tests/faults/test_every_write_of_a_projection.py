"""Each write of the projections, made to fail in each way: they start again and come to the same state."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import pytest

from kt_es.errors import UnavailableError
from kt_es.eventstore.streams import ANY, content_event
from kt_es.formats.entries import OPENING, OPENING_ERASED, encode_erased
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.openings import OpeningTable
from kt_es.ledger.replay import Replay
from kt_es.ledger.rows import Committed
from projections.follower import OpeningsFollower
from tests.builders import ORIGIN, SIGNER_KEY, index, opening_event
from tests.faults.machine import SLICE, Crash, Disk, Fault, Machine
from tests.faults.test_every_effect import run_once
from tests.reference.memory_log import MemoryLog
from tests.reference.signing import NAMES

FAULTS = [fault for fault in Fault if fault is not Fault.FAIL_LATE]


@functools.cache
def published() -> MemoryLog:
    return run_once().log


def restarted(run: Callable[[Disk], None], *, keep: bool) -> Disk:
    """A process that is started again whenever it has ended, on what then is on its disk."""
    disk = Disk()
    for _ in range(5):
        try:
            run(disk)
        except (Crash, UnavailableError):
            disk.crash(keep=keep)
        else:
            disk.crash(keep=True)
            return disk
    raise AssertionError("it does not come to its end")


def follow(machine: Machine, *, keep: bool = True) -> tuple[Committed, list[tuple[bytes, bytes]]]:
    """What a front end or a monitor has after both logs, and every entry with it."""

    def run(disk: Disk) -> None:
        ledger = Ledger(machine.storage(disk), ORIGIN, SIGNER_KEY, slice_size=SLICE)
        for _ in Replay(published(), NAMES, ledger).catch_up():
            pass

    disk = restarted(run, keep=keep)
    ledger = Ledger(disk.durable, ORIGIN, SIGNER_KEY)
    return ledger.committed, list(disk.durable.scan("entries"))


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_replica_and_a_monitor(fault: Fault, keep: bool) -> None:
    plain = Machine()
    must = follow(plain)
    assert plain.kinds["commit"] >= 3
    assert plain.kinds["slice"] >= 1
    for number in range(1, plain.effects + 1):
        assert follow(Machine({number: fault}), keep=keep) == must


def take_openings(machine: Machine, log: MemoryLog, count: int, *, keep: bool) -> list[tuple[bytes, bytes]]:
    def run(disk: Disk) -> None:
        store = machine.storage(disk)
        table = OpeningTable(store)
        follower = OpeningsFollower(lambda: log, NAMES, table, lambda error: None)
        done = -1 if table.position is None else table.position
        events = itertools.islice(log.subscribe_prefix(NAMES.openings_prefix, done), count - 1 - done)
        for event in events:
            follower.add(event)

    return list(restarted(run, keep=keep).durable.scan(OpeningTable.FAMILY))


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_openings(fault: Fault, keep: bool) -> None:
    log, made = MemoryLog(), [opening_event(user) for user in ("alice", "bob", "carol")]
    events = [
        (user, OPENING, one.encode()) for user, one in zip(("alice", "bob", "carol"), made, strict=True)
    ]
    events.append(("bob", OPENING_ERASED, encode_erased(made[1].entry_hash)))
    events.append(("bob", OPENING, made[1].encode()))
    for user, kind, data in events:
        # The last one is an event of its own, of what was erased: it must not come back.
        log.append(NAMES.openings(index(user)), ANY, [content_event(f"{log.appends}", kind, data)])
    plain = Machine()
    must = take_openings(plain, log, len(events), keep=True)
    assert sorted(value == b"" for _, value in must) == [False, False, True]
    assert plain.effects == len(events)
    for number in range(1, plain.effects + 1):
        assert take_openings(Machine({number: fault}), log, len(events), keep=keep) == must
