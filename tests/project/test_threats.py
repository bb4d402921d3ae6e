"""The table of lies in docs/THREATS.md and the lies that ``make lies`` tells are the same."""

from __future__ import annotations

import re
from pathlib import Path

from tools.lies.catalogue import load
from tools.lies.registry import SCENES, table

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/THREATS.md").read_text()


def rows() -> list[str]:
    section = TEXT.partition("\n## Lies\n")[2].partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| `")]


def test_the_table_is_the_list() -> None:
    load()
    assert rows() == table()
    # One row for each lie, and README says how many there are.
    assert f"tells {len(rows())} lies" in (ROOT / "README.md").read_text()


def test_each_lie_has_one_name_and_a_sentence() -> None:
    load()
    lies = [one for scene in SCENES for one in scene.lies]
    assert len({one.name for one in lies}) == len(lies)
    assert [one.name for one in lies if not one.message or "|" in one.message] == []


def test_each_scene_names_tests_that_are_there() -> None:
    load()
    assert [scene.name for scene in SCENES if not (ROOT / scene.also).is_file()] == []


def test_each_lie_of_a_scene_is_another_case() -> None:
    load()
    for scene in SCENES:
        cases = [one.case for one in scene.lies]
        assert len(set(cases)) == len(cases), scene.name


def test_every_exit_code_is_explained() -> None:
    explained = set(re.findall(r"^\| (\d) \|", TEXT, re.MULTILINE))
    load()
    # Codes of three digits are statuses of HTTP.
    codes = {str(one.code) for scene in SCENES for one in scene.lies if one.code < 100}
    assert codes <= explained | {"1", "2"}
