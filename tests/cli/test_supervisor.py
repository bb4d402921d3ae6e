"""Which processes ``kt up`` starts again, and which it gives up."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence

import pytest

from kt_es.cli.supervisor import SETTLED, Child, Supervisor
from tests.reference.clocks import Clock


class Scripted:
    """A process that has ended already, with the next of ``codes``."""

    codes: Sequence[int] = ()
    started = 0

    def __init__(self, *_: object, **__: object) -> None:
        self.pid = 1
        self.code = Scripted.codes[Scripted.started]
        Scripted.started += 1

    def poll(self) -> int | None:
        return self.code


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    monkeypatch.setattr(subprocess, "Popen", Scripted)
    monkeypatch.setattr(Scripted, "started", 0)
    return clock


def run(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, *codes: int, lives: float = 0.0
) -> tuple[Child, list[str]]:
    """A child whose processes end with ``codes``, each after ``lives`` seconds, and what is reported."""
    monkeypatch.setattr(Scripted, "codes", (*codes, 4))
    said: list[str] = []
    supervisor = Supervisor(said.append, lambda _pids: None)
    child = supervisor.start("signer", ())
    for _ in range(100):
        if child.final_code is not None:
            break
        clock.now += lives or 1.0
        supervisor.check()
    supervisor.stop()
    return child, said


@pytest.mark.parametrize("code", [2, 4, 5])
def test_what_refuses_at_once_is_given_up(clock: Clock, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    child, said = run(clock, monkeypatch, code)
    assert (child.final_code, child.restarts) == (code, 0)
    assert said == [f"signer ended with exit code {code}: it is not started again"]


@pytest.mark.parametrize("code", [1, 7, -9])
def test_failures_and_outages_are_started_again_as_often_as_it_takes(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    child, said = run(clock, monkeypatch, *[code] * 12)
    # Until the lie that ends the script.
    assert (child.final_code, child.restarts) == (4, 12)
    assert all(line.endswith(": starting it again") for line in said[:-1])


def test_a_process_that_has_worked_is_not_given_up_for_what_it_finds_then(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that has turned read-only looks like a directory that cannot be used."""
    assert run(clock, monkeypatch, 1, *[2] * 8)[0].restarts == 9
    monkeypatch.setattr(Scripted, "started", 0)
    assert run(clock, monkeypatch, *[2] * 3, lives=SETTLED + 1)[0].restarts == 3


@pytest.mark.parametrize("code", [4, 5])
def test_a_lie_ends_a_process_that_has_worked(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    child, _ = run(clock, monkeypatch, 1, 1, code)
    assert (child.final_code, child.restarts) == (code, 2)
