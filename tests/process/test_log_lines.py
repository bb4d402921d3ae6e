"""The log of a process: JSON whoever says it, repeated lines counted, and none lost or hidden."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from kt_es.process import log_filters, logs
from kt_es.process.log_filters import KEPT, WINDOW


class Log:
    """A log that is written to memory, by a clock that is moved."""

    def __init__(self) -> None:
        self.now = 0.0
        self.stream = io.StringIO()
        logs.configure(
            "test", self.stream, [structlog.processors.JSONRenderer()], serves=False, clock=lambda: self.now
        )
        self.logger = structlog.get_logger("t")

    @property
    def lines(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.stream.getvalue().splitlines()]
        return [{key: line[key] for key in line if key not in ("timestamp", "process")} for line in lines]

    @property
    def events(self) -> list[tuple[str, int]]:
        return [(line["event"], line.get("repeated", 0)) for line in self.lines]


@pytest.fixture
def log() -> Iterator[Log]:
    made = Log()
    yield made
    logs.release()


def test_a_line_that_repeats_is_written_once_and_counted(log: Log) -> None:
    for _ in range(1000):
        log.logger.error("failed", at="here")
    assert log.lines == [{"event": "failed", "level": "error", "at": "here"}]
    log.now = WINDOW
    log.logger.error("failed", at="here")
    logs.release()
    assert log.events == [("failed", 0), ("failed", 999), ("failed", 0)]


def test_lines_that_alternate_are_counted_each(log: Log) -> None:
    for _ in range(5):
        log.logger.error("one")
        log.logger.warning("other")
    logs.release()
    assert log.events == [("one", 0), ("other", 0), ("one", 4), ("other", 4)]


def test_a_count_comes_with_any_later_line(log: Log) -> None:
    for _ in range(3):
        log.logger.warning("again")
    log.now = WINDOW
    log.logger.info("something else")
    assert log.events == [("again", 0), ("again", 2), ("something else", 0)]


def test_lines_that_differ_in_one_member_are_all_written(log: Log) -> None:
    for number in range(50):
        log.logger.error("failed", number=number)
        log.logger.warning("failed", number=number)
    assert len(log.lines) == 100


def test_what_a_process_did_is_always_written(log: Log) -> None:
    for _ in range(3):
        log.logger.info("active")
    assert log.events == [("active", 0)] * 3


def test_only_so_many_lines_are_remembered_and_no_count_is_lost(log: Log) -> None:
    log.logger.error("first")
    log.logger.error("first")
    for number in range(KEPT):
        log.logger.error("failed", number=number)
    assert log.events.count(("first", 1)) == 1


def test_a_count_comes_by_itself_without_another_line() -> None:
    now = 0.0
    written: list[Any] = []
    counting = log_filters.Repeats(written.append, lambda: now)
    event = {"event": "failed", "level": "error"}
    assert counting(None, "error", event) is event
    for _ in range(2):
        with pytest.raises(structlog.DropEvent):
            counting(None, "error", dict(event))
    counting.tick()
    assert written == []
    now = WINDOW
    counting.tick()
    counting.tick()
    assert written == [{**event, "repeated": 2}]


class FullDisk(io.StringIO):
    full = False

    def write(self, text: str) -> int:
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_a_log_that_cannot_be_written_stops_nothing_and_names_what_is_missing() -> None:
    stream = FullDisk()
    logs.configure("test", stream, [structlog.processors.JSONRenderer()], serves=False)
    logger = structlog.get_logger("t")
    stream.full = True
    logger.info("one")
    logger.info("two")
    stream.full = False
    logger.info("three")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["three", "log lines could not be written"]
    assert lines[1]["lines"] == 2


class Reentering(io.StringIO):
    logger: Any = None

    def write(self, text: str) -> int:
        logger, self.logger = self.logger, None
        if logger is not None:
            logger.error("from within")
        return super().write(text)


def test_a_line_that_comes_while_another_one_is_written_blocks_nothing() -> None:
    stream = Reentering()
    logs.configure("test", stream, [structlog.processors.JSONRenderer()], serves=False)
    stream.logger = structlog.get_logger("t")
    structlog.get_logger("t").error("outer")
    events = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert sorted(events) == ["from within", "outer"]


# --- what others say -----------------------------------------------------------------------------

_BEGIN = """
import asyncio, gc, logging, socketserver, sys, threading, traceback, warnings
import structlog
from kt_es.process import logs
logs.configure("test", sys.stderr, [structlog.processors.JSONRenderer()])
"""


def lines_of(program: str) -> list[dict[str, Any]]:
    """The lines of a process that runs ``program``; each has to be an object of JSON."""
    done = subprocess.run(
        [sys.executable, "-c", _BEGIN + program],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert lines
    assert all(line["process"] == "test" and "timestamp" in line and "level" in line for line in lines)
    assert "secret" not in done.stderr
    return lines


def test_warnings_and_records_of_libraries_are_lines() -> None:
    warned, recorded = lines_of(
        "warnings.warn('an old name\\nof two lines', DeprecationWarning, 1)\n"
        "logging.getLogger('library').error('it went %s', 'wrong')\n"
        "logging.getLogger('library').info('nothing')\n"
    )
    assert (warned["logger"], "an old name\nof two lines" in warned["event"]) == ("py.warnings", True)
    assert (recorded["logger"], recorded["event"], recorded["level"]) == ("library", "it went wrong", "error")


def test_an_exception_that_ends_the_process_is_a_line_without_its_message() -> None:
    (line,) = lines_of("def fail():\n    raise ValueError('secret')\nfail()\n")
    assert (line["level"], line["error"]) == ("critical", "ValueError")
    assert line["at"][-1].endswith(" fail")


def test_an_exception_that_ends_a_thread_is_a_line() -> None:
    (line,) = lines_of(
        "def fail():\n    raise ValueError('secret')\n"
        "thread = threading.Thread(target=fail, name='worker')\nthread.start()\nthread.join()\n"
    )
    assert (line["thread"], line["error"]) == ("worker", "ValueError")


def test_an_exception_that_nobody_asked_for_is_a_line() -> None:
    (line,) = lines_of(
        "async def fail():\n    raise ValueError('secret')\n"
        "async def main():\n    asyncio.create_task(fail())\n    await asyncio.sleep(0)\n    gc.collect()\n"
        "asyncio.run(main())\n"
    )
    assert line["logger"] == "asyncio"
    assert line["event"] == "Task exception was never retrieved"
    assert line["error"] == "ValueError"


def test_a_callback_that_fails_is_a_line_without_what_it_was_called_with() -> None:
    (line,) = lines_of(
        "import uvloop\n"
        "def fail(data):\n    raise ValueError(data)\n"
        "async def main():\n"
        "    asyncio.get_running_loop().call_soon(fail, 'secret')\n    await asyncio.sleep(0)\n"
        "with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:\n    runner.run(main())\n"
    )
    assert (line["event"], line["error"]) == ("Exception in callback", "ValueError")


def test_an_exception_in_a_finalizer_is_a_line() -> None:
    (line,) = lines_of(
        "class Thing:\n    def __del__(self):\n        raise ValueError('secret')\n"
        "thing = Thing()\ndel thing\n"
    )
    assert line["error"] == "ValueError"


def test_what_is_printed_on_standard_error_becomes_lines() -> None:
    lines = lines_of(
        "print('one', file=sys.stderr)\nsys.stderr.write('two\\nthree')\n"
        "try:\n    raise KeyError(5)\nexcept KeyError:\n    traceback.print_exc()\n"
    )
    assert [line["line"] for line in lines[:2]] == ["one", "two"]
    assert lines[2]["line"].startswith("threeTraceback")
    assert lines[-1]["line"] == "KeyError: 5"


def test_counts_come_out_at_the_end_of_the_process() -> None:
    first, count = lines_of("for _ in range(7):\n    logging.getLogger('library').error('it went wrong')\n")
    assert "repeated" not in first
    assert count["repeated"] == 6


def test_an_exception_that_is_logged_has_its_place() -> None:
    (line,) = lines_of(
        "try:\n    int('secret')\nexcept ValueError:\n"
        "    structlog.get_logger().exception('no number', reason='none')\n"
    )
    assert (line["event"], line["error"], line["reason"]) == ("no number", "ValueError", "none")


@pytest.mark.parametrize(
    "arguments", [("--data", "/dev/null/node"), ("--data", "node", "--listen", "nowhere")]
)
def test_a_node_that_cannot_start_reports_it_in_json(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kt_es.node", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode != 0
    assert [json.loads(line)["level"] for line in done.stderr.splitlines()][-1] == "error"
