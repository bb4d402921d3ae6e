"""When epochs end: no later than promised by either clock, and in order whatever the wall clock does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kt_es.eventstore.streams import ANY, content_event
from kt_es.formats.queue import CONFIG
from tests.builders import config, mutation, signed_config
from tests.faults.machine import LIMITS, Machine
from tests.reference.signing import NAMES, check_logs, heads, submit

DAY = 24 * 3600 * 1000


def step(machine: Machine, seconds: float) -> None:
    """Time goes by, the schedule is looked at, and what is in the queue is delivered."""
    machine.now += seconds
    machine.advance("a")
    for event in list(machine.log.read(NAMES.queue)):
        if event.revision not in machine.acknowledged:
            machine.deliver("a", event.revision)


@pytest.fixture(params=[False, True], ids=["local", "shared"])
def machine(request: pytest.FixtureRequest) -> Machine:
    """A signer that has published the config's epoch."""
    machine = Machine(shared=request.param)
    machine.start("a")
    step(machine, 2.0)
    step(machine, 0.0)
    assert len(heads(machine.log)) == 1
    return machine


def test_the_min_interval_is_respected(machine: Machine) -> None:
    submit(machine.log, [mutation("alice")])
    step(machine, 0.4)
    step(machine, 0.4)
    assert len(heads(machine.log)) == 1
    step(machine, 0.4)
    assert len(heads(machine.log)) == 2


def test_silence_makes_a_heartbeat_and_no_more(machine: Machine) -> None:
    for _ in range(40):
        step(machine, 1.0)
    assert len(heads(machine.log)) == 1
    for _ in range(10):
        step(machine, 1.0)
    assert len(heads(machine.log)) == 2


@pytest.mark.parametrize("restarted", [False, True])
def test_a_new_config_gets_its_first_head_without_a_heartbeat(machine: Machine, restarted: bool) -> None:
    """Whoever changes intervals or a key waits for it, in a directory where nobody else does anything."""
    before = config()
    changed = signed_config(replace(before, max_interval=90_000, previous=before.hash))
    machine.log.append(NAMES.queue, ANY, [content_event(NAMES.queue, CONFIG, changed.encode())])
    step(machine, 1.0)
    step(machine, 0.0)
    assert [head.config_hash for head in heads(machine.log)] == [before.hash] * 2
    if restarted:
        machine.start("a")
    step(machine, 1.0)
    step(machine, 0.0)
    assert heads(machine.log)[-1].config_hash == changed.config.hash
    for _ in range(30):
        step(machine, 1.0)
    assert len(heads(machine.log)) == 3


def test_a_full_batch_ends_an_epoch_early(machine: Machine) -> None:
    submit(machine.log, [mutation(f"user{number}") for number in range(LIMITS.batch_limit)])
    step(machine, 0.01)
    step(machine, 0.01)
    assert heads(machine.log)[-1].map_size == LIMITS.batch_limit


@pytest.mark.parametrize("skews", [(-3 * DAY, 0), (3 * DAY, 0), (3 * DAY, -3 * DAY)])
def test_steps_of_the_wall_clock_break_nothing(machine: Machine, skews: tuple[int, int]) -> None:
    for number, skew in enumerate(skews):
        machine.skew = skew
        submit(machine.log, [mutation(f"user{number}")])
        step(machine, 0.5)
        # A step forward makes a head due at once; a step back changes nothing.
        assert len(heads(machine.log)) == 1 + number + (skew > 0)
        step(machine, 0.6)
        assert len(heads(machine.log)) == 2 + number
    timestamps = [head.timestamp for head in heads(machine.log)]
    assert timestamps == sorted(set(timestamps))
    assert not machine.stopped
    check_logs(machine.log)


def test_a_head_that_is_due_comes_at_once_after_an_outage(machine: Machine) -> None:
    machine.now += 300.0
    machine.start("a")
    step(machine, 0.05)
    step(machine, 0.05)
    assert len(heads(machine.log)) == 2


def test_signers_that_start_again_and_again_count_from_the_last_head(machine: Machine) -> None:
    for _ in range(6):
        machine.start("a")
        step(machine, 10.0)
        step(machine, 0.05)
    assert len(heads(machine.log)) == 2


def test_a_signer_that_becomes_active_early_waits(machine: Machine) -> None:
    machine.start("a")
    step(machine, 5.0)
    step(machine, 0.05)
    assert len(heads(machine.log)) == 1
