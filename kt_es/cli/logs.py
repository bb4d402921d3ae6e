"""Structured logs of the processes, on stderr: lines for a terminal, JSON for everything else.

A terminal gets a bar instead of the lines on how far a rebuild from the logs is.
"""

from __future__ import annotations

import logging
from typing import TextIO

import structlog

from kt_es.cli.output import shown, use_color
from kt_es.process.logs import configure, words

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


def configure_logs(process: str, logs: str = "auto", *, serves: bool = True) -> None:
    """For each command, and anew where it is one that ``serves``: a process with a name in its log.

    Labels, profiles and openings are never passed to a logger. ``logs`` is one of ``LOGS``: lines on a
    terminal and JSON elsewhere, JSON everywhere, or lines for what is wrong and nothing else. Where JSON was
    asked for, the words of the command are lines, too.
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
