"""Structured logs of the processes, on stderr: lines for a terminal, JSON for everything else.

A terminal gets a bar instead of the lines on how far a rebuild from the logs is.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import TextIO

import structlog

from kt_es.cli.output import shown, use_color
from kt_es.process.redaction import without_password
from kt_es.process.sayings import lost_lines

LOGS = ("auto", "json", "problems")
WIDTH = 30  # of the bar, characters
CLEAR = "\r\033[K"


class RecoveryBar:
    """A processor that draws ``recovering`` as one line, written again and again, and drops it."""

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal
        self._drawn = False

    def __call__(self, _: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if event["event"] == "recovering" and event.get("of_records"):
            self._draw(event["records"], event["of_records"], event["records_per_second"])
            raise structlog.DropEvent
        if self._drawn:
            self._terminal.write(CLEAR)
            self._drawn = False
        return event

    def _draw(self, records: int, of: int, rate: int) -> None:
        full = min(WIDTH, WIDTH * records // of)
        bar = "#" * full + "-" * (WIDTH - full)
        left = max(0, of - records) // max(rate, 1)
        self._terminal.write(
            f"{CLEAR}  recovering  [{bar}] {min(100, 100 * records // of)}%  "
            f"{records:,} of {of:,} records, {rate:,}/s, {left // 60}:{left % 60:02} left"
        )
        self._terminal.flush()
        self._drawn = True


def harmless(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape what a terminal would obey: names of streams, for instance, are anybody's who may write."""
    return {key: shown(value) if isinstance(value, str) else value for key, value in event.items()}


def redacted(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Take passwords out of addresses: connection strings stand in errors of libraries."""
    return {key: _redacted(value) for key, value in event.items()}


def _redacted(value: object) -> object:
    if isinstance(value, str):
        return without_password(value)
    if isinstance(value, Mapping):
        return {key: _redacted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(item) for item in value]
    return value if isinstance(value, int | float | None) else without_password(str(value))


def complete(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Say how many lines before this one the disk had no room for."""
    lost = lost_lines()
    return {**event, "lost_lines": lost} if lost else event


def configure_logs(process: str, logs: str = "auto") -> None:
    """Once per process. Labels, profiles and openings are never passed to a logger.

    ``logs`` is one of ``LOGS``: lines on a terminal and JSON elsewhere, JSON everywhere, or lines for what
    is wrong and nothing else.
    """
    is_terminal = sys.stderr.isatty()
    lines: list[structlog.typing.Processor] = [
        harmless,
        structlog.dev.ConsoleRenderer(colors=is_terminal and use_color() is not False),
    ]
    if is_terminal and logs == "auto":
        lines.insert(0, RecoveryBar(sys.stderr))
    renderer = (
        lines
        if logs == "problems" or (logs == "auto" and is_terminal)
        else [structlog.processors.JSONRenderer()]
    )

    # Not by a context variable: threads begin with none.
    def name_process(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {**event, "process": process}

    structlog.configure(
        processors=[
            name_process,
            complete,
            redacted,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.WARNING if logs == "problems" else logging.INFO
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
