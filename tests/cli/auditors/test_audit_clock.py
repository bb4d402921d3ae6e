"""`kt audit` reports gaps, future heads and silence, and ends with 7."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kt_es.cli.auditors import audit as auditing
from kt_es.cli.main import cli
from kt_es.client.trusted import Pinned
from kt_es.errors import CannotTellError
from kt_es.eventstore import connecting as waiting
from tests import builders as b
from tests.reference.memory_log import MemoryLog
from tests.reference.timed_epochs import LIMIT, timed


class Command:
    """``kt audit`` over a log in memory, with a clock of the test's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: object = MemoryLog()
        self.now = b.START
        monkeypatch.setattr(waiting, "Connector", lambda _: lambda: self.log)
        monkeypatch.setattr(auditing, "wall_clock", lambda: self.now)

    def run(
        self, *options: str, key: str = "signer", as_json: bool = True
    ) -> tuple[BaseException | None, Any]:
        vkey = Pinned(b.ORIGIN, b.public(b.private_key(key))).vkey
        words = ["audit", "--vkey", vkey, "--log", "esdb://memory", *options]
        ran = CliRunner().invoke(cli, [*(["--json"] if as_json else []), *words], obj={})
        return ran.exception, json.loads(ran.stdout) if as_json and ran.stdout else ran.stdout


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(monkeypatch)


def test_the_command_reports_everything_before_it_ends_with_7(command: Command) -> None:
    command.log, command.now = timed(0, LIMIT + 1).log, b.START + 3 * LIMIT
    error, document = command.run()
    assert isinstance(error, CannotTellError)
    assert error.exit_code == 7
    assert (document["epochs"], document["gaps"], document["silence"]) == (2, 1, 2 * LIMIT - 1)
    assert document["longest_gap"]["after_epoch"] == 1
    assert document["longest_gap"]["length"] == LIMIT + 1
    assert "silence for" in str(error)
    assert "--allow-gaps" in str(error)


def test_the_command_accepts_gaps_that_are_allowed(command: Command) -> None:
    command.log, command.now = timed(0, LIMIT + 1).log, b.START + LIMIT
    error, document = command.run("--allow-gaps")
    assert error is None
    assert (document["gaps"], document["future_heads"], document["silence"]) == (1, 0, 0)
    assert isinstance(command.run()[0], CannotTellError)


def test_the_command_reports_as_of_when_if_nothing_is_new(command: Command, tmp_path: Path) -> None:
    command.log = timed(0, 1_000).log
    assert command.run("--data", str(tmp_path))[0] is None
    error, said = command.run("--data", str(tmp_path), as_json=False)
    assert error is None
    assert "verified as of epoch 2, 2024-01-01 00:00:01 UTC, and the log still holds that head" in said
    _, document = command.run("--data", str(tmp_path))
    assert (document["anchor"], document["epoch"], document["epochs"]) == (2, 2, 0)


def test_nothing_to_audit_is_a_failure(command: Command) -> None:
    error, said = command.run(as_json=False)
    assert getattr(error, "exit_code", None) == 1
    assert "kt_heads-people" in str(error)
    assert "correct" not in said
