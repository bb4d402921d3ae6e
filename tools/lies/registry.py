"""The definition of a lie, and the list of all lies. docs/THREATS.md has the same list as a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tools.lies.commands import Ran
from tools.lies.stage import Stage

Telling = Callable[[Stage, "str | None"], Ran]
"""Sets everything up, tells the lie ``case``, or the truth for None, and returns the command's result."""

BY_SIGNER = "signer"
BY_LOG = "event log"
BY_FRONT_END = "front end"
BY_SERVER = "server of tiles"
BY_WITNESS = "witness"
BY_THIEF = "thief of a key"

ONCE = "at once"
RESTART = "at the next start"
LIVE = "while it runs"
LATER = "at the next look"


@dataclass(frozen=True, slots=True)
class Lie:
    """One row of the table.

    Attributes:
        teller: Who tells the lie.
        command: The command that catches the lie.
        when: When the command catches it.
        code: The exit code.
        says: A part of the sentence that the command prints.
        case: The name of the lie among the lies that share a set-up.
    """

    name: str
    teller: str
    command: str
    when: str
    code: int
    message: str
    case: str


@dataclass(frozen=True, slots=True)
class Scene:
    """A set-up, with the lies that are told in it.

    Attributes:
        control: The exit code of the control, which is the set-up without a lie.
        also: The file with the tests that show the same within one process.
    """

    name: str
    tell: Telling
    lies: tuple[Lie, ...]
    control: int
    also: str


SCENES: list[Scene] = []


def lie(
    name: str, teller: str, command: str, code: int, message: str, when: str = ONCE, case: str = "lie"
) -> Lie:
    return Lie(name, teller, command, when, code, message, case)


def scene(*lies: Lie, also: str, control: int = 0) -> Callable[[Telling], Telling]:
    """Register a function that tells ``lies``. It gets the ``case`` of the lie to tell."""

    def register(tell: Telling) -> Telling:
        name = tell.__name__.strip("_").replace("_", "-")
        SCENES.append(Scene(name, tell, lies, control, also))
        return tell

    return register


def table() -> list[str]:
    """Return the rows of the table in docs/THREATS.md."""
    rows = []
    for scene in SCENES:
        rows += [
            f"| `{one.name}` | {one.teller} | `{one.command}` | {one.when} | {one.code} "
            f"| {one.message} | `{scene.also}` |"
            for one in scene.lies
        ]
    return rows
