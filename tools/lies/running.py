"""Runs lies and their controls, several at a time, and reports of each whether it was caught."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tools.lies.commands import Ran, StageError
from tools.lies.nodes import Log, running_logs
from tools.lies.registry import Lie, Scene
from tools.lies.stage import Stage


@dataclass(frozen=True, slots=True)
class LieVerdict:
    """The result of a lie, or of a control, whose ``lie`` is None."""

    scene: Scene
    lie: Lie | None
    code: int | None
    message: str
    problem: str
    seconds: float

    @property
    def passed(self) -> bool:
        return not self.problem

    @property
    def name(self) -> str:
        return f"control of {self.scene.name}" if self.lie is None else self.lie.name

    @property
    def expected(self) -> int:
        return self.scene.control if self.lie is None else self.lie.code

    @property
    def word(self) -> str:
        if self.lie is None:
            return "passed" if self.passed else "CONTROL FAILED"
        return "caught" if self.passed else "NOT CAUGHT"


def run(scenes: Sequence[tuple[Scene, Lie | None]], jobs: int) -> Iterator[LieVerdict]:
    """Tell each lie, and yield each verdict as soon as it is known."""
    with (
        tempfile.TemporaryDirectory(prefix="kt-lies-") as base,
        running_logs(Path(base)) as logs,
        ThreadPoolExecutor(jobs) as pool,
    ):
        waiting = [
            pool.submit(_run, scene, one, Path(base) / f"d{number}", logs)
            for number, (scene, one) in enumerate(scenes)
        ]
        for done in as_completed(waiting):
            yield done.result()


def _run(scene: Scene, one: Lie | None, base: Path, logs: tuple[Log, Log]) -> LieVerdict:
    began = time.monotonic()
    ran: Ran | None = None
    try:
        with Stage(base, base.name, logs) as stage:
            ran = scene.tell(stage, None if one is None else one.case)
        problem = _problem(scene, one, ran)
    except StageError as error:
        problem = f"the stage: {error}"
    except Exception as error:  # a fault of the harness fails only this lie
        problem = f"the harness: {type(error).__name__}: {error}"
    spent = time.monotonic() - began
    message = "" if ran is None else ran.message
    return LieVerdict(scene, one, None if ran is None else ran.code, message, problem, spent)


def _problem(scene: Scene, one: Lie | None, ran: Ran) -> str:
    """Return what is wrong with the result; empty if it is as promised."""
    expected = scene.control if one is None else one.code
    if ran.is_broken:
        return f"it broke: {ran.err[-2000:]}"
    if ran.code != expected:
        return f"it ended with {ran.code}, not with {expected}: {ran.message}"
    if one is not None and one.message not in " ".join((ran.err + ran.out).split()):
        return f"it did not say {one.message!r}: {ran.message}"
    return ""
