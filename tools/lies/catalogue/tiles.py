"""The lies about the logs once more, told over tiles to processes that have nothing but a URL.

Lies that only the queue or the events of the log reveal are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tools.lies.catalogue.followers import Logs
from tools.lies.commands import Ran
from tools.lies.registry import BY_LOG, BY_SERVER, LIVE, SCENES, Lie, Scene, lie, scene
from tools.lies.stage import Stage

_WRONG_FILES = "are not those of its checkpoint"
_GONE = "has no heads/checkpoint"
_ALSO = "tests/projections/test_tiled_replay.py"


def _again(
    name: str, *, left_out: Sequence[str] = (), instead: dict[str, tuple[int, str]] | None = None
) -> None:
    """Register the lies of a scene for tiles.

    Args:
        left_out: Cases that are no lies over tiles, or have a scene of their own.
        instead: What another exit code and sentence catch them with, by case.
    """
    original = next(one for one in SCENES if one.name == name)
    lies = tuple(_over_tiles(one, instead or {}) for one in original.lies if one.case not in left_out)
    SCENES.append(Scene(f"{name}-over-tiles", _by_tiles(original), lies, original.control, _ALSO))


def _over_tiles(one: Lie, instead: dict[str, tuple[int, str]]) -> Lie:
    code, message = instead.get(one.case, (one.code, one.message))
    command = one.command
    for word in ("audit", "monitor"):
        command = command.replace(f"kt {word}", f"kt {word} --from")
    teller = BY_SERVER if one.teller == BY_LOG else one.teller
    return replace(
        one, name=f"{one.name}-over-tiles", teller=teller, command=command, code=code, message=message
    )


def _by_tiles(original: Scene) -> Callable[[Stage, str | None], Ran]:
    def tell(stage: Stage, case: str | None) -> Ran:
        stage.show_tiles()
        return original.tell(stage, case)

    return tell


_again("verdicts")
_again("items", left_out=["last", "changed", "invented", "digest"])
_again(
    "grouping",
    left_out=["regrouped"],
    instead={"changed": (4, _WRONG_FILES), "cut": (4, "records of epoch 2 are missing")},
)
_again("beginning")
_again("heads", instead={"heads_root": (4, _WRONG_FILES), "mutations_root": (4, _WRONG_FILES)})
_again("audit-resumes", instead={"empty-log at the next start": (7, _GONE)})
_again(
    "monitor",
    left_out=[
        f"{what} {when}"
        for when in ("at the next start", LIVE)
        for what in ("rollback", "longer-fork", "empty-log")
    ],
)
_again("clocks", left_out=["directory"], instead={"heads": (7, _GONE)})
_again("watchman", left_out=["silence", "future"])
_again("convicted-followers")
_again("audit-evidence")


@scene(
    lie("rollback-monitor-over-tiles", BY_SERVER, "kt monitor --from", 0, "may be behind", LIVE, "rollback"),
    lie("empty-log-monitor-over-tiles", BY_SERVER, "kt monitor --from", 0, _GONE, LIVE, "empty-log"),
    also="tests/projections/test_tiled_monitor.py",
)
def monitor_that_waits(stage: Stage, case: str | None) -> Ran:
    """A monitor bears this as long as a head may take, says so, and then raises an alarm."""
    stage.show_tiles()
    logs = Logs.make(stage, case)
    process = stage.process("monitor")
    process.wait_for_line('"epoch": 3')
    logs.tell(stage)
    process.wait_for_line('"epoch": 4' if case is None else "the server cannot be reached")
    return process.stop()
