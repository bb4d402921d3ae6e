"""Structured logs of the processes, on standard error: lines for a terminal, JSON elsewhere.

A terminal shows the progress of a rebuild from the logs as a bar.
"""

from __future__ import annotations

import logging
from typing import TextIO

import structlog

from kt_es.cli.output import CLEAR_LINE, shown, use_color
from kt_es.process.logs import configure, words

LOGS = ("auto", "json", "problems")
WIDTH = 30  # of the bar, characters


class RecoveryBar:
    """A log processor that drops ``recovering`` events and draws them as one line, rewritten each time."""

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal
        self._drawn = False

    def __call__(self, _: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if event["event"] == "recovering" and event.get("of_records"):
            self._draw(event["records"], event["of_records"], event["records_per_second"])
            raise structlog.DropEvent
        if self._drawn:
            self._terminal.write(CLEAR_LINE)
            self._drawn = False
        return event

    def _draw(self, records: int, of: int, rate: int) -> None:
        full = min(WIDTH, WIDTH * records // of)
        bar = "#" * full + "-" * (WIDTH - full)
        left = max(0, of - records) // max(rate, 1)
        self._terminal.write(
            f"{CLEAR_LINE}  recovering  [{bar}] {min(100, 100 * records // of)}%  "
            f"{records:,} of {of:,} records, {rate:,}/s, {left // 60}:{left % 60:02} left"
        )
        self._terminal.flush()
        self._drawn = True


def harmless(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape control characters. Values such as names of streams are untrusted."""
    return {key: shown(value) if isinstance(value, str) else value for key, value in event.items()}


def configure_logs(process: str, logs: str = "auto", *, serves: bool = True) -> None:
    """Configure the log of this process.

    Every command calls it once, and one that serves calls it again with its own name. Labels, profiles and
    openings are never passed to a logger.

    Args:
        process: the name of the process in its log.
        logs: one of ``LOGS``. "auto" writes lines on a terminal and JSON elsewhere; "json" writes JSON
            everywhere, also for messages to the user; "problems" writes lines for warnings and errors alone.
        serves: whether the process runs until it is stopped.
    """
    stream = words()
    is_terminal = stream.isatty()
    lines: list[structlog.typing.Processor] = [
        harmless,
        structlog.dev.ConsoleRenderer(colors=is_terminal and use_color() is not False),
    ]
    if is_terminal and logs == "auto":
        lines.insert(0, RecoveryBar(stream))
    as_lines = logs == "problems" or (logs == "auto" and is_terminal)
    configure(
        process,
        stream,
        lines if as_lines else [structlog.processors.JSONRenderer()],
        logging.WARNING if logs == "problems" else logging.INFO,
        serves=serves,
        with_words=logs == "json",
    )
