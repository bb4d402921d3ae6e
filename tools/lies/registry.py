"""What a lie is, and the list of all lies. docs/THREATS.md has the same list as its table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tools.lies.commands import Ran
from tools.lies.stage import Stage

Telling = Callable[[Stage, "str | None"], Ran]
"""Sets everything up and tells the lie ``case``, or the truth where it is None; what the command said."""

BY_SIGNER = "signer"
BY_LOG = "event log"
BY_FRONT_END = "front end"
BY_THIEF = "thief of a key"

ONCE = "at once"
RESTART = "at the next start"
LIVE = "while it runs"
LATER = "at the next look"


@dataclass(frozen=True, slots=True)
class Lie:
    """One row: who tells it, which command catches it and when, the exit code, and what the command says.

    ``says`` is a part of the sentence. ``case`` names the lie among those that share a set-up.
    """

    name: str
    teller: str
    command: str
    when: str
    code: int
    says: str
    case: str


@dataclass(frozen=True, slots=True)
class Scene:
    """A set-up with the lies that are told in it, and the control: without a lie it ends with ``control``.

    ``also`` is the file of tests that shows the same within a process.
    """

    name: str
    tell: Telling
    lies: tuple[Lie, ...]
    control: int
    also: str


SCENES: list[Scene] = []


def lie(
    name: str, teller: str, command: str, code: int, says: str, when: str = ONCE, case: str = "lie"
) -> Lie:
    return Lie(name, teller, command, when, code, says, case)


def told(*lies: Lie, also: str, control: int = 0) -> Callable[[Telling], Telling]:
    """Register a function that tells ``lies``, each by its ``case``."""

    def register(tell: Telling) -> Telling:
        name = tell.__name__.strip("_").replace("_", "-")
        SCENES.append(Scene(name, tell, lies, control, also))
        return tell

    return register


def table() -> list[str]:
    """The rows of the table in docs/THREATS.md."""
    rows = []
    for scene in SCENES:
        rows += [
            f"| `{one.name}` | {one.teller} | `{one.command}` | {one.when} | {one.code} "
            f"| {one.says} | `{scene.also}` |"
            for one in scene.lies
        ]
    return rows
