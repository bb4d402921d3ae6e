"""Each effect of the signer, made to fail in each way: the logs come out the same, and nothing is lost."""

from __future__ import annotations

import pytest

from tests.builders import mutation, next_mutation, private_key
from tests.faults.machine import Fault, Machine, check_shared
from tests.reference.signing import check_logs, records, submit, verdicts

SUBMITTED = 11 + 32
USERS = ["alice", "bob", "carol", "dave", "erin", "frank"]


def story(machine: Machine) -> None:
    """Two epochs' worth of submissions, one of each kind, through whatever is planned."""
    first = [mutation(user) for user in USERS]
    submit(machine.log, first[:4])
    machine.start("a")
    step(machine)
    submit(machine.log, [*first[4:], first[0], mutation("mallory", signed_by=[private_key("eve")])])
    step(machine)
    submit(machine.log, [next_mutation("alice", first[0]), first[1], b"garbage"])
    # More than one records event holds.
    submit(machine.log, [bytes(16_000)] * 16)
    submit(machine.log, [bytes(16_001)] * 16)
    step(machine)
    machine.settle()


def step(machine: Machine) -> None:
    """One delivery, some time, one look around; a process that has ended is started again."""
    if "a" not in machine.running:
        machine.start("a")
    machine.deliver("a", machine.log.last_revision("kt_queue-people"))
    machine.now += 1.5
    machine.advance("a")
    machine.now += 0.5
    machine.advance("a")


def run_once(*, shared: bool = False) -> Machine:
    machine = Machine(shared=shared)
    story(machine)
    return machine


EFFECTS = {shared: run_once(shared=shared).effects for shared in (False, True)}


def check(machine: Machine) -> None:
    assert not machine.stopped
    ledger = check_logs(machine.log)
    places = [(record.item.revision, record.item.position) for record in records(machine.log)]
    assert len(set(places)) == len(places)
    # Of two markers for the same end of an epoch the second is stale, or ends an empty epoch.
    submitted = [verdict for verdict in verdicts(machine.log) if verdict != "stale-marker"]
    assert len(submitted) == SUBMITTED
    assert ledger.committed.root.size == len(USERS)
    if machine.shared is not None:
        check_shared(machine.log, machine.shared, ledger.committed)


@pytest.fixture(params=[False, True], ids=["local", "shared"])
def shared(request: pytest.FixtureRequest) -> bool:
    """Whether the map is on the disk of each signer, or in a store that all of them share."""
    return bool(request.param)


def test_the_story_has_effects_of_every_kind_and_several_appends_and_slices_an_epoch(shared: bool) -> None:
    machine = run_once(shared=shared)
    check(machine)
    epochs = machine.kinds["commit"]
    assert machine.kinds["append to kt_queue-people"] >= 3
    assert machine.kinds["append to kt_heads-people"] == epochs >= 3
    assert machine.kinds["append to kt_mutations-people"] > epochs
    assert machine.kinds["shared write" if shared else "slice"] >= 1
    assert machine.kinds["acknowledge"] >= 3


@pytest.mark.parametrize("fault", list(Fault))
def test_each_effect_may_fail(fault: Fault, shared: bool) -> None:
    for number in range(1, EFFECTS[shared] + 1):
        machine = Machine({number: fault}, shared=shared)
        story(machine)
        check(machine)


@pytest.mark.parametrize("late_by", [1, 2, 5, 8, 13, 10_000])
def test_an_append_may_be_written_at_any_time_later(late_by: int, shared: bool) -> None:
    """Just before the same append is repeated, in the middle of what comes then, and when all is done."""
    for number in range(1, EFFECTS[shared] + 1):
        machine = Machine({number: Fault.FAIL_LATE}, late_by, shared=shared)
        story(machine)
        check(machine)


@pytest.mark.parametrize("fault", [Fault.CRASH_BEFORE, Fault.CRASH_AFTER])
def test_each_effect_may_be_the_last_before_the_power_goes(fault: Fault, shared: bool) -> None:
    """As above, but everything that was not synced is gone."""
    for number in range(1, EFFECTS[shared] + 1):
        machine = Machine({number: fault}, shared=shared)
        machine.crash = lambda name, *, keep=True, end=machine.crash: end(name, keep=False)  # type: ignore[method-assign,misc]
        story(machine)
        check(machine)


@pytest.mark.parametrize("second", [Fault.CRASH_AFTER, Fault.FAIL_DONE, Fault.FAIL_LATE])
@pytest.mark.parametrize("first", [Fault.CRASH_BEFORE, Fault.FAIL_LATE])
def test_two_faults_in_a_row(first: Fault, second: Fault, shared: bool) -> None:
    for number in range(1, EFFECTS[shared]):
        machine = Machine({number: first, number + 1: second}, shared=shared)
        story(machine)
        check(machine)
