"""The helper ``full_disk`` itself: it is full when it says so, and free again."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.faults.full_disk import full_disk


def test_a_full_disk_takes_nothing_and_takes_it_again_when_freed(tmp_path: Path) -> None:
    with full_disk(tmp_path, 4) as disk:
        assert disk.left == 4 << 20
        for _ in range(2):
            disk.fill()
            assert disk.left == 0
            with pytest.raises(OSError, match="No space left") as refused:
                (disk.path / "new").write_bytes(bytes(5000))
            assert refused.value.errno == errno.ENOSPC
            (disk.path / "new").unlink()
            disk.free()
            (disk.path / "new").write_bytes(bytes(5000))
            (disk.path / "new").unlink()
        disk.fill(leave=64 << 10)
        assert disk.left == 64 << 10
