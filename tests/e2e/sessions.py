"""Commands of the documents, run as a reader runs them: one after the other, in one shell and one folder."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.processes import KT, Stranger

ROOT = Path(__file__).parents[2]
HOME = "~"
"""What the documents write for the home of the reader."""

_MARK = "@@ ended with "
# What differs from run to run: each with what stands in its place in a comparison.
_VARYING = (
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"), "TIME"),
    (re.compile(r"\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44}"), "+VKEY"),
    (re.compile(r"SHA256:[A-Za-z0-9+/]{43}"), "FINGERPRINT"),
    (re.compile(r"\bAAAA[A-Za-z0-9+/]{60,}"), "KEY"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "ID"),
    (re.compile(r"\b127\.0\.0\.1:\d+"), "ADDRESS"),
    (re.compile(r"\d+(\.\d+)?"), "N"),
)


@dataclass(frozen=True, slots=True)
class Step:
    """A command, and the lines that a document shows below it; ``...`` stands for any lines."""

    command: str
    shown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Printed:
    """What a command said, standard error included, and its exit code."""

    lines: tuple[str, ...]
    code: int


def blocks(document: str, heading: str) -> Iterator[str]:
    """The code blocks below a heading, up to the next heading of its level or above."""
    text = (ROOT / document).read_text(encoding="utf-8")
    level = heading.partition(" ")[0]
    (section,) = re.findall(
        rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", text, re.MULTILINE | re.DOTALL
    )
    return iter(re.findall(r"^```[a-z]*\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))


def console(block: str) -> list[Step]:
    """The steps of a block that shows a terminal: commands after ``$``, the rest is what they say."""
    steps: list[Step] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            steps.append(Step(line.removeprefix("$ ")))
        elif line.strip():
            steps[-1] = Step(steps[-1].command, (*steps[-1].shown, line))
    return steps


def commands(block: str) -> list[str]:
    """The commands of a block that shows nothing else, one a line, without comments."""
    return [line.partition("   ")[0].strip() for line in block.splitlines() if line.strip()]


def replaced(text: str, values: Mapping[str, str]) -> str:
    """``text`` with what a reader has to put in, in the place of what the document has there."""
    for old, new in values.items():
        text = text.replace(old, new)
    return text


def run_in_shell(
    someone: Stranger, steps: list[str], *, typed: str = "", seconds: float = 240
) -> list[Printed]:
    """Run ``steps`` in one shell in the home of ``someone``; each is given ``typed`` on standard input."""
    path = f"{Path(KT).parent}:{someone.environment['PATH']}"
    (someone.home / "typed").write_text(typed)
    script = "".join(
        # The exit code stays what it is for a step that asks for it.
        f'{step}\n__code=$?; echo; echo "{_MARK}$__code"; (exit $__code)\n'
        for step in steps
    )
    done = subprocess.run(
        ["bash", "-c", f"exec < typed\n{script}" if typed else script],
        cwd=someone.home,
        env={**someone.environment, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    printed = []
    rest = done.stdout
    for _ in steps:
        said, mark, rest = rest.partition(_MARK)
        assert mark, done.stdout
        code, _, rest = rest.partition("\n")
        lines = said.replace(str(someone.home), HOME).splitlines()
        printed.append(Printed(tuple(line for line in lines if line.strip()), int(code)))
    return printed


def as_shown(shown: tuple[str, ...], said: tuple[str, ...]) -> bool:
    """Whether ``said`` is what a document shows, numbers, keys and times apart."""
    if not shown:
        return True
    pattern = "".join(
        r"(?:.*\n)*" if line.strip() == "..." else re.escape(_stable(line)) + r"\n" for line in shown
    )
    return re.fullmatch(pattern, "".join(_stable(line) + "\n" for line in said)) is not None


def _stable(line: str) -> str:
    for varying, instead in _VARYING:
        line = varying.sub(instead, line)
    return line.rstrip()
