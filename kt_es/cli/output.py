"""What the commands print: data on stdout, check marks and progress on stderr, ``--json`` everywhere."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click


@dataclass(frozen=True, slots=True)
class Output:
    """Where a command's words go. With ``json`` stdout carries exactly one JSON document."""

    json: bool = False
    quiet: bool = False

    def ok(self, text: str) -> None:
        self._mark("✓", "green", text)

    def fail(self, text: str) -> None:
        self._mark("✗", "red", text)

    def note(self, text: str) -> None:
        if not self.quiet:
            click.echo(text, err=True)

    def data(self, document: dict[str, Any], lines: Iterable[str]) -> None:
        """The answer itself: ``document`` with ``--json``, ``lines`` for people without."""
        if self.json:
            click.echo(json.dumps(document, ensure_ascii=False, indent=2))
        else:
            for line in lines:
                click.echo(line)

    def _mark(self, mark: str, color: str, text: str) -> None:
        if not self.quiet:
            click.echo(f"{click.style(mark, fg=color)} {text}", err=True, color=use_color())


def use_color() -> bool | None:
    """False under NO_COLOR (no-color.org), else click decides by the terminal."""
    return False if os.environ.get("NO_COLOR") else None


def at(milliseconds: int) -> str:
    """A timestamp as people read it, UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def is_terminal() -> bool:
    return sys.stderr.isatty()
