"""The harness of ``make lies``, on a few lies of each kind; and that it says so where one is not caught."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools.lies.catalogue import load
from tools.lies.commands import Ran
from tools.lies.registry import SCENES, Lie, Scene, lie
from tools.lies.running import LieVerdict, run
from tools.lies.stage import Stage

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]

A_FEW = (
    "verdict-unauthorized-accepted",
    "head-map-root",
    "profile-swapped",
    "newest-version-hidden",
    "batch-with-an-entry-forged",
    "fork-get",
    "rollback-checkpoint",
    "evidence-shown-to-anybody",
    "account-vanishes-get",
    "erasure-that-is-not-in-the-log",
    "another-entry-stands",
    "fork-audit-resumes",
    "stale-head-status",
    "full-disk-while-a-lie-is-proven",
    "two-views-audit",
    "cosignatures-left-out",
)


def chosen() -> list[tuple[Scene, Lie | None]]:
    load()
    return [(scene, one) for scene in SCENES for one in scene.lies if one.name in A_FEW]


def test_a_few_lies_are_caught() -> None:
    verdicts = list(run(chosen(), jobs=2))
    assert [verdict for verdict in verdicts if not verdict.passed] == []
    assert len(verdicts) == len(A_FEW)


def honest(stage: Stage, _: str | None) -> Ran:
    """The truth, whatever was asked for."""
    universe = stage.universe()
    universe.put("alice")
    universe.epoch()
    stage.write(universe)
    return stage.audit()


def verdict_of(expected: Lie | None, control: int = 0) -> LieVerdict:
    scene = Scene("nothing", honest, (), control, "")
    (verdict,) = run([(scene, expected)], jobs=1)
    return verdict


def test_what_is_not_caught_is_reported() -> None:
    verdict = verdict_of(lie("nothing", "nobody", "kt audit", 4, "head"))
    assert verdict.word == "NOT CAUGHT"
    assert verdict.problem.startswith("it ended with 0, not with 4: ")


def test_the_right_code_with_another_sentence_is_not_enough() -> None:
    verdict = verdict_of(lie("nothing", "nobody", "kt audit", 0, "something else"))
    assert verdict.word == "NOT CAUGHT"
    assert verdict.problem.startswith("it did not say 'something else': ")


def test_a_control_that_fails_is_reported() -> None:
    assert verdict_of(None).word == "passed"
    assert verdict_of(None, control=3).word == "CONTROL FAILED"


def test_no_lie_at_all_is_a_failure() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.lies", "--only", "no lie has this name"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == "0 of 0 lies caught"
