"""Sizes of files, and the place of tests: rules of the house that a check can hold."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Lines of one file, by folder.
MOST = {"kt_es": 300, "projections": 300, "signer": 300, "tests": 400}


@pytest.mark.parametrize("folder", MOST)
def test_no_file_is_long(folder: str) -> None:
    files = list((ROOT / folder).rglob("*.py"))
    assert len(files) > 5
    lines = {file.relative_to(ROOT).as_posix(): len(file.read_text().splitlines()) for file in files}
    assert {name: count for name, count in lines.items() if count > MOST[folder]} == {}


def test_every_folder_of_tests_has_a_row_in_the_readme() -> None:
    rows = [row for row in (ROOT / "tests/README.md").read_text().splitlines() if row.startswith("| `tests/")]
    folders = {file.relative_to(ROOT).parts[1] for file in (ROOT / "tests").rglob("*/test_*.py")}
    assert len(folders) > 10
    missing = {name for name in folders if not any(f"`tests/{name}/`" in row.split("|")[1] for row in rows)}
    assert missing == set()
