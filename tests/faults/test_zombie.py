"""A signer that lost its place without knowing, beside the new one: over own disks and a shared store."""

from __future__ import annotations

import pytest

from tests.builders import mutation, next_mutation
from tests.faults.machine import Machine, check_shared
from tests.faults.test_every_effect import USERS, shared
from tests.reference.signing import NAMES, check_logs, heads, submit

__all__ = ["shared"]  # a fixture


def work(machine: Machine, name: str, seconds: float) -> None:
    machine.deliver(name, machine.log.last_revision(NAMES.queue))
    machine.now += seconds
    machine.advance(name)


@pytest.mark.parametrize("stalls", range(1, 9))
def test_a_signer_that_wakes_anywhere_in_an_epoch_harms_nothing(stalls: int, shared: bool) -> None:
    """It stalls after so many steps; the next one publishes; then it goes on as if nothing had happened."""
    machine = Machine(shared=shared)
    first = [mutation(user) for user in USERS]
    submit(machine.log, first[:3])
    machine.start("zombie")
    for number in range(stalls):
        work(machine, "zombie", 0.4)
        if number == min(2, stalls - 1):
            submit(machine.log, first[3:])
    # The server gives its place away.
    machine.release("zombie")
    machine.start("heir")
    submit(machine.log, [next_mutation(USERS[0], first[0])])
    for _ in range(4):
        work(machine, "heir", 0.8)
    published = len(heads(machine.log))
    assert published >= 1
    for _ in range(6):
        work(machine, "zombie", 0.8)
        work(machine, "heir", 0.8)
    machine.settle(["heir", "zombie"])
    assert not machine.stopped
    ledger = check_logs(machine.log)
    assert ledger.committed.root.size == len(USERS)
    if machine.shared is not None:
        check_shared(machine.log, machine.shared, ledger.committed)


def test_the_story_is_the_same_for_a_signer_whose_place_is_given_away_at_each_step(shared: bool) -> None:
    machine = Machine(shared=shared)
    first = [mutation(user) for user in USERS]
    for number, one in enumerate(first):
        submit(machine.log, [one])
        name = f"signer {number % 3}"
        if machine.holder is not None:
            machine.release(machine.holder)
        if name not in machine.running:
            machine.start(name)
        machine.take_place(name)
        for running in list(machine.running):
            work(machine, running, 0.7)
    machine.settle([f"signer {number}" for number in range(3)])
    assert not machine.stopped
    assert check_logs(machine.log).committed.root.size == len(USERS)
