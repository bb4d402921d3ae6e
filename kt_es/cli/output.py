"""Output and context of a command: data on standard output, messages and logs on standard error, settings.

Untrusted text, such as labels, names, comments and answers of servers, passes this module on its way to a
terminal. Every line is escaped here, so that no command can forget to do it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click
import structlog

from kt_es.cli.supervisor import end_with_parent
from kt_es.errors import EquivocationError, KtError, VerificationError
from kt_es.extras import require
from kt_es.formats.evidence import armored
from kt_es.process.log_filters import without_password
from kt_es.process.logs import configure, takes_words, words
from kt_es.process.signals import stop_event

if TYPE_CHECKING:
    from kt_es.config.settings import Settings

MAX_SHOWN = 16 * 1024
"""Characters of one line. The largest key that is shown has about 3,000."""

LOGS = ("auto", "json", "problems")
STATE_FILE = "up.json"
"""The file beside ``kt.toml`` in which ``kt up`` describes its processes."""

FAILED = "✗"
CLEAR_LINE = "\r\033[K"
_LOG = structlog.get_logger("kt_es.cli")

# Characters that Python considers printable, but that are invisible or change the character before them.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def shown(text: str) -> str:
    """Return ``text`` as one harmless line.

    Control characters, line breaks, marks that change the direction of writing, invisible characters and
    bytes that are not text become escapes such as ``\\x1b``. A long text is cut, with a note of its length.
    """
    cut = "" if len(text) <= MAX_SHOWN else f"... ({len(text) - MAX_SHOWN} characters more)"
    text = text[:MAX_SHOWN]
    if not text.isprintable():
        text = "".join(character if character.isprintable() else _escaped(character) for character in text)
    return _INVISIBLE.sub(lambda found: _escaped(found[0]), text) + cut


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


KINDS = {
    2: "unusable",
    3: "absent",
    4: "verification-failed",
    5: "contradiction",
    6: "not-yours",
    7: "cannot-tell",
    8: "no-quorum",
}
"""The name of an exit code in the document of a failure. Every other code is a ``failure``."""


def failure(code: int, problem: str, error: KtError | None = None) -> dict[str, Any]:
    """Return the value of ``error`` in the document of a command that failed."""
    document: dict[str, Any] = {"exit_code": code, "kind": KINDS.get(code, "failure"), "problem": problem}
    if isinstance(error, VerificationError):
        document["step"] = error.step
    if isinstance(error, EquivocationError):
        document["evidence"] = None if error.saved is None else str(error.saved)
        if error.saved is None and error.evidence is not None:
            # Nothing else will have it once the command has ended.
            document["armored"] = armored(error.evidence)
    return document


@dataclass(slots=True)
class Output:
    """The output of one command. With ``json`` standard output carries exactly one JSON document.

    ``has_data`` is True once the document was printed. A command that fails before prints its failure.
    """

    json: bool = False
    quiet: bool = False
    has_data: bool = False

    def ok(self, text: str) -> None:
        if not self.quiet:
            say(text, "✓", "green")

    def fail(self, text: str) -> None:
        if not self.quiet:
            say(text, FAILED, "red")

    def note(self, text: str) -> None:
        if not self.quiet:
            say(text)

    def warn(self, text: str) -> None:
        """Print what a quiet command must say, too."""
        say(text)

    def data(self, document: dict[str, Any], lines: Iterable[str]) -> None:
        """Print the answer: ``document`` with ``--json``, otherwise ``lines``."""
        self.has_data = True
        if self.json:
            # ASCII only: JSON itself would leave a part of the control characters as they are.
            click.echo(json.dumps(document, indent=2))
        else:
            for line in lines:
                click.echo(shown(line))

    def line(self, document: dict[str, Any], text: str) -> None:
        """Print one of many answers as it comes: with ``--json`` ``document`` in one line, or ``text``."""
        self.has_data = True
        click.echo(json.dumps(document) if self.json else shown(text))
        sys.stdout.flush()

    def progress(self, text: str = "") -> None:
        """Rewrite the line of progress on a terminal. An empty ``text`` removes the line."""
        if sys.stderr.isatty() and not self.quiet:
            click.echo(f"{CLEAR_LINE}{text}", err=True, nl=False)

    def progress_of(self, what: str, count: int) -> None:
        self.progress(f"  {what}: {count:,}")


def say(text: str, mark: str = "", color: str = "green") -> None:
    """Print one line on standard error, after ``mark``; with ``--logs json`` write it to the log instead."""
    if takes_words():
        (_LOG.error if mark == FAILED else _LOG.info)(text.strip())
        return
    prefix = f"{click.style(mark, fg=color)} " if mark else ""
    click.echo(f"{prefix}{shown(without_password(text))}", file=words(), color=use_color())


def use_color() -> bool | None:
    """Return False under NO_COLOR (no-color.org), otherwise None: click decides by the terminal."""
    return False if os.environ.get("NO_COLOR") else None


def at(milliseconds: int) -> str:
    """Format a timestamp, in milliseconds since 1970, for people: in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def output_of(context: click.Context) -> Output:
    output = context.find_root().obj["output"]
    return output if isinstance(output, Output) else Output()


def logs_of(context: click.Context) -> str:
    return str(context.find_root().obj["logs"])


def config_path(context: click.Context) -> Path:
    return Path(context.find_root().obj["config"])


def settings_of(context: click.Context, log: str | None = None) -> Settings:
    """Load the settings of ``--config``.

    ``log`` replaces the connection string of the file. Otherwise that of a running ``kt up`` does: its node
    may have another address than in the file. Raises ``ConfigError``.
    """
    path = config_path(context)
    require("server", f"reading {path}")
    from kt_es.config.settings import load_settings

    settings = load_settings(path)
    log = log or running_up(settings.base).get("log")
    return settings if log is None else settings.model_copy(update={"log": log})


def running_up(base: Path) -> Mapping[str, Any]:
    """Return the state file of the ``kt up`` that runs in ``base``; empty if none runs there."""
    try:
        state = json.loads((base / STATE_FILE).read_text())
        os.kill(int(state["pid"]), 0)
    except PermissionError:
        pass  # the process exists, but belongs to another user
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return state if isinstance(state, dict) else {}


def stop_on_signals() -> threading.Event:
    """Return an event that SIGINT and SIGTERM set. A second signal ends the process at once."""
    end_with_parent()
    return stop_event()


class RecoveryBar:
    """A log processor that draws ``recovering`` events on a terminal as one bar, rewritten each time."""

    WIDTH = 30  # characters

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
        full = min(self.WIDTH, self.WIDTH * records // of)
        bar = "#" * full + "-" * (self.WIDTH - full)
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

    Every command calls it once, and one that ``serves`` until it is stopped calls it again with its own name.
    Labels, profiles and openings are never passed to a logger.

    Of ``LOGS``, "auto" writes lines on a terminal and JSON elsewhere; "json" writes JSON everywhere, also for
    messages to the user; "problems" writes lines for warnings and errors alone.
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
