"""Signers over a shared store that was pruned while they were away: they go on from the newest epoch."""

from __future__ import annotations

import pytest

from kt_es.errors import DivergenceError, RollbackError
from kt_es.eventstore.streams import content_event
from tests.builders import mutation
from tests.faults.machine import Fault, Machine, check_shared
from tests.reference.memory_log import MemoryLog
from tests.reference.signing import NAMES, check_logs, data_of, heads, submit


def sign(machine: Machine, name: str, epochs: int) -> None:
    """Let ``name`` sign so many epochs, with a user of its own in each."""
    must = len(heads(machine.log)) + epochs
    while (published := len(heads(machine.log))) < must:
        submit(machine.log, [mutation(f"{name} {published}")])
        machine.deliver(name, machine.log.last_revision(NAMES.queue))
        machine.now += 2.0
        for _ in range(2):
            machine.advance(name)
            machine.deliver(name, machine.log.last_revision(NAMES.queue))
        assert name in machine.running, machine.stopped


def away() -> Machine:
    """Signer a is away since epoch 2, b has signed up to epoch 6, and only that one is kept."""
    machine = Machine(shared=True)
    machine.start("a")
    sign(machine, "a", 2)
    machine.crash("a")
    machine.start("b")
    sign(machine, "b", 4)
    machine.prune(1)
    return machine


def check(machine: Machine) -> None:
    assert not machine.stopped
    assert machine.shared is not None
    check_shared(machine.log, machine.shared, check_logs(machine.log).committed)


def committed(machine: Machine, name: str) -> int:
    return machine.running[name]._ledger.committed.epoch


@pytest.mark.parametrize("takes_over", [True, False], ids=["active", "standby"])
def test_a_signer_that_was_away_goes_on_from_the_newest_epoch(takes_over: bool) -> None:
    machine = away()
    if takes_over:
        machine.crash("b")
    machine.start("a")
    assert committed(machine, "a") == 6
    sign(machine, "a" if takes_over else "b", 2)
    check(machine)


def uncommitted() -> Machine:
    """Signer a ended between the head of epoch 4 and its commit."""
    for effect in range(1, 20):
        machine = Machine(shared=True)
        machine.start("a")
        sign(machine, "a", 3)
        submit(machine.log, [mutation("one more")])
        machine.plan[machine.effects + effect] = Fault.CRASH_AFTER
        machine.now += 2.0
        for _ in range(3):
            machine.advance("a")
            machine.deliver("a", machine.log.last_revision(NAMES.queue))
        if len(heads(machine.log)) == 4 and "a" not in machine.running:
            return machine
    raise AssertionError("no effect is between head and commit")


def test_a_signer_that_published_a_head_and_did_not_commit_it_goes_on() -> None:
    """The state of that head exists, and the pages of the epoch before are gone."""
    machine = uncommitted()
    assert machine.durable("a") == heads(machine.log)[-2].queue_next
    machine.prune(1)
    machine.start("a")
    assert committed(machine, "a") == 4
    sign(machine, "a", 2)
    check(machine)


def test_a_frozen_signer_that_wakes_after_a_prune_begins_again_and_goes_on() -> None:
    machine = Machine(shared=True)
    machine.start("a")
    sign(machine, "a", 2)
    machine.release("a")
    machine.start("b")
    sign(machine, "b", 4)
    machine.prune(1)
    machine.deliver("a", machine.log.last_revision(NAMES.queue))
    machine.advance("a")
    machine.settle(["a", "b"])
    sign(machine, machine.holder or "a", 1)
    check(machine)


@pytest.mark.parametrize(
    ("is_lost", "error"), [(True, RollbackError), (False, DivergenceError)], ids=["lost", "another"]
)
def test_the_head_that_was_committed_here_is_compared_before_anything_is_adopted(
    is_lost: bool, error: type[DivergenceError]
) -> None:
    """The log lost it, or has another one in its place: that pages were pruned excuses neither."""
    machine, log = away(), MemoryLog()
    machine.crash("b")
    for event in machine.log._all:
        data = event.data
        if (event.stream, event.revision) == (NAMES.heads, 1):
            data = data[:-1] + bytes([data[-1] ^ 1])
        if not (is_lost and event.stream == NAMES.heads and event.revision > 0):
            log.append(event.stream, event.revision - 1, [content_event(event.stream, event.type, data)])
    machine.log = log
    before = data_of(log, NAMES.heads)
    machine.start("a")
    assert type(machine.stopped["a"]) is error
    assert data_of(log, NAMES.heads) == before
