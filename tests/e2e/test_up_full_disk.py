"""A whole ``kt up`` on a disk that becomes full: lookups go on, writes are refused, all resumes by itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.processes import Stranger, heads_of, is_alive, log_at, running_up, until
from tests.faults.full_disk import FullDisk, full_disk

pytestmark = pytest.mark.e2e

PARTS = ("node", "signer", "frontend", "monitor")
# No heartbeat of a signer that waits is missed meanwhile.
SLOW = ("--min-interval", "0.2", "--max-interval", "600")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FullDisk]:
    with full_disk(tmp_path, 256) as disk:
        yield disk


def put(someone: Stranger, name: str, code: int = 0, timeout: str = "60") -> str:
    """``kt put`` for ``name``; what it complains of."""
    file = someone.home / f"{name}.txt"
    file.write_text(f"key of {name}")
    words = ("put", f"{name}@example.org", "--key", file, "--type", "raw", "--timeout", timeout)
    return someone.kt(*words, code=code).err


def is_answered(someone: Stranger, name: str) -> None:
    assert someone.kt("--json", "get", f"{name}@example.org").document["keys"]


def lives(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def test_a_full_disk_is_an_outage_of_writes_and_nothing_else(disk: FullDisk, tmp_path: Path) -> None:
    # What it says is on that disk, too.
    with running_up(disk.path / "data", *SLOW) as up:
        url = up.url
        someone = up.stranger(tmp_path / "home")
        someone.kt("keys", "generate")
        put(someone, "alice")
        before = {part: up.pid(part) for part in PARTS}
        disk.fill()
        for name in ("bob", "carol"):
            put(someone, name, code=7, timeout="5")
            is_answered(someone, "alice")
        # All are killed, and come back to a disk that is full still.
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: not is_alive(pid), "it is gone")  # type: ignore[misc]
        until(lambda: lives(url), "the front end answers again", 90)
        is_answered(someone, "alice")
        refused = put(someone, "dave", code=7, timeout="5")
        assert "is full" in refused
        assert up.process.poll() is None
        disk.free()
        # Nobody does anything.
        put(someone, "erin", timeout="90")
        for name in ("alice", "erin"):
            is_answered(someone, name)
        now = {part: up.restarted(part, pid) for part, pid in before.items()}
        assert all(is_alive(pid) for pid in now.values())
        with log_at(up.log_uri) as log:
            assert len(heads_of(log)) > 1
        up.audit()
