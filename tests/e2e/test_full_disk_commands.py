"""Commands with what they keep on a disk that is really full: they say so in one line, and end with 7."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import Stranger, Up
from tests.faults.full_disk import FullDisk, full_disk

pytestmark = pytest.mark.e2e


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FullDisk]:
    with full_disk(tmp_path, 32) as made:
        yield made


def names_the_disk(complaint: str, disk: FullDisk) -> bool:
    return str(disk.path) in complaint and "its disk is full" in complaint and "make room" in complaint


def test_an_audit_names_where_there_is_no_space_and_goes_on_later(directory: Up, disk: FullDisk) -> None:
    auditor = Stranger(disk.path.parent / "auditor")
    audit = ("-c", directory.settings, "audit", "--log", directory.log_uri, "--data", disk.path / "data")
    for left in (0, 20_000, 70_000):
        disk.fill(leave=left)
        assert names_the_disk(auditor.kt("-q", *audit, code=7).complaint, disk)
        disk.free()
    auditor.kt(*audit)


def test_a_client_that_cannot_remember_reports_it_and_later_works(directory: Up, disk: FullDisk) -> None:
    someone = directory.stranger(disk.path / "home")
    for left in (0, 4096, 12_288, 20_480):
        disk.fill(leave=left)
        ran = someone.kt("-q", "get", "nobody@example.org", code=7)
        assert names_the_disk(ran.complaint, disk), (left, ran)
        disk.free()
    someone.kt("get", "nobody@example.org", code=3)


def test_keys_and_directories_that_cannot_be_written(directory: Up, disk: FullDisk) -> None:
    someone = directory.stranger(disk.path / "home")
    disk.fill()
    assert names_the_disk(someone.kt("-q", "keys", "generate", "mine", code=7).complaint, disk)
    made = someone.kt("-q", "init", "--data", disk.path / "made", "--log", directory.log_uri, code=7)
    assert names_the_disk(made.complaint, disk)
    disk.free()
    someone.kt("keys", "generate", "mine")
