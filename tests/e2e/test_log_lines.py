"""Where JSON is asked for, everything on standard error is JSON, from the first word to the last."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import Stranger, Up

pytestmark = pytest.mark.e2e


def lines_of(said: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in said.splitlines()]
    assert all({"event", "level", "process", "timestamp"} <= set(line) for line in lines)
    return lines


def test_kt_up_and_its_processes_print_json_alone(tmp_path: Path) -> None:
    up = Up(tmp_path / "up")
    try:
        up.wait().wait_for_line('"verified"')
    finally:
        assert up.stop(signal.SIGTERM) == 0, up.spoken
    lines = lines_of(up.spoken)
    assert {"up", "node", "signer", "frontend", "monitor"} <= {line["process"] for line in lines}
    assert next(line["event"] for line in lines if line["process"] == "up").startswith("made ")


def test_a_watch_prints_json_alone(tmp_path: Path) -> None:
    arguments = ("watch", "alice@example.org", "--server", "http://127.0.0.1:1", "--once", "--mine", "nobody")
    (line,) = lines_of(Stranger(tmp_path).kt("--logs", "json", *arguments, code=2).err)
    assert (line["process"], "nobody" in line["event"]) == ("watch", True)


@pytest.mark.parametrize("command", ["signer", "frontend", "monitor"])
def test_a_process_that_cannot_start_reports_it_in_json(command: str, tmp_path: Path) -> None:
    ran = Stranger(tmp_path).kt("--logs", "json", command, code=2)
    (line,) = lines_of(ran.err)
    assert (line["level"], "kt.toml" in line["event"]) == ("error", True)
