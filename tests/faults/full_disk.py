"""A file system of a few MiB that is really full, and has space again."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

FILLER = "filler"
_CHUNK = 1 << 20
_PAGE = 4096  # what tmpfs gives out at a time


@dataclass(frozen=True, slots=True)
class FullDisk:
    """The file system at ``path``. ``fill`` and ``free`` may be called again and again."""

    path: Path

    def fill(self, leave: int = 0) -> None:
        """Take all space that is left but ``leave`` bytes.

        Files that end within a block of theirs still grow to the end of that block.
        """
        filler = os.open(self.path / FILLER, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            for size in (_CHUNK, _PAGE):
                with contextlib.suppress(OSError):
                    while os.write(filler, bytes(size)) == size:
                        pass
            if leave:
                os.ftruncate(filler, max(0, os.fstat(filler).st_size - leave))
        finally:
            os.close(filler)

    def free(self) -> None:
        """Give back what ``fill`` took."""
        (self.path / FILLER).unlink(missing_ok=True)

    @property
    def left(self) -> int:
        """Bytes that are left."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize


@contextlib.contextmanager
def full_disk(directory: Path, mebibytes: int) -> Iterator[FullDisk]:
    """A file system of its own in ``directory``, with so much space; it begins empty.

    Root mounts it. Others do so in a namespace of their own, which a process holds open, and reach it
    through that process. Where neither is possible, the test is skipped with the reason.
    """
    mount = directory / "disk"
    mount.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0700", "kt-es-test", str(mount)]
    if shutil.which("mount") is None:
        pytest.skip("there is no mount here")
    mounted = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if not mounted.returncode:
        try:
            yield FullDisk(mount)
        finally:
            # Lazily: a process that a failed test left behind must not keep it.
            subprocess.run(["umount", "--lazy", str(mount)], check=True)
        return
    with _in_namespace(mount, options) as path:
        yield FullDisk(path)


@contextlib.contextmanager
def _in_namespace(mount: Path, options: list[str]) -> Iterator[Path]:
    if shutil.which("unshare") is None:
        pytest.skip("mounting a file system needs root or unshare")
    script = 'mount "$@" && echo mounted && exec cat'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", *options]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stderr is not None
        if holder.stdout.readline() != "mounted\n":
            pytest.skip(f"mounting is not permitted here: {holder.stderr.read().strip()}")
        try:
            yield Path(f"/proc/{holder.pid}/root{mount}")
        finally:
            # Its namespace and the file system end with it.
            holder.stdin.close()
            holder.wait()
