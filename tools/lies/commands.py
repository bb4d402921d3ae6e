"""Runs ``kt`` as a process: to its end, or in the background until it ends by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

KT = str(Path(sys.executable).with_name("kt"))
PATIENCE = 120.0


class StageError(Exception):
    """A lie could not be told, because a step before it failed."""


@dataclass(frozen=True, slots=True)
class Ran:
    """The result of a finished command. ``memory`` is its peak in MiB."""

    code: int
    out: str
    err: str
    memory: int = 0
    seconds: float = 0.0

    @property
    def message(self) -> str:
        """The first error message; without one, the last line."""
        lines = [line for line in self.err.splitlines() if line.startswith("✗ ")]
        return lines[0].removeprefix("✗ ") if lines else (self.out + self.err).strip().rpartition("\n")[2]

    @property
    def is_broken(self) -> bool:
        """Whether the command failed with a traceback or an internal error, which no command may do."""
        text = self.out + self.err
        return "Traceback" in text or "internal error" in text


class Process:
    """A running ``kt``. Two threads read its output from pipes."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: dict[str, str],
        home: Path,
        limit: Callable[[], None] | None = None,
    ) -> None:
        self._began = time.monotonic()
        self._ran: Ran | None = None
        self._process = subprocess.Popen(
            [KT, *arguments],
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=limit,  # noqa: PLW1509  only where a lie needs it
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._out = _Output(self._process.stdout)
        self._err = _Output(self._process.stderr)

    @property
    def spoken(self) -> str:
        return self._out.text + self._err.text

    def wait_for_line(self, text: str, seconds: float = PATIENCE) -> str:
        """Wait for a line that contains ``text``, and return the line."""
        end = time.monotonic() + seconds
        while True:
            found = [line for line in self.spoken.splitlines() if text in line]
            if found:
                return found[0]
            if time.monotonic() > end or self._has_ended():
                raise StageError(f"{text!r} was not said:\n{self.spoken}")
            threading.Event().wait(0.03)

    def end(self, seconds: float = PATIENCE) -> Ran:
        """Wait until the process ends by itself. Code -1 means that it did not end and was killed."""
        end = time.monotonic() + seconds
        while not self._has_ended():
            if time.monotonic() > end:
                self._process.kill()
                self._wait(0)
                assert self._ran is not None
                self._ran = Ran(-1, self._ran.out, self._ran.err, self._ran.memory, self._ran.seconds)
                break
            threading.Event().wait(0.01)
        assert self._ran is not None
        return self._ran

    def stop(self, number: signal.Signals = signal.SIGTERM) -> Ran:
        """Ask the process to end, and wait for its end."""
        if not self._has_ended():
            self._process.send_signal(number)
        return self.end()

    def _has_ended(self) -> bool:
        return self._wait(os.WNOHANG)

    def _wait(self, how: int) -> bool:
        if self._ran is not None:
            return True
        pid, status, usage = os.wait4(self._process.pid, how)
        if pid == 0:
            return False
        self._process.returncode = code = os.waitstatus_to_exitcode(status)
        spent = time.monotonic() - self._began
        self._ran = Ran(code, self._out.end(), self._err.end(), usage.ru_maxrss // 1024, spent)
        return True


class _Output:
    """Collects the output of a pipe until its end. ``text`` is the output so far."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._parts: list[bytes] = []
        self._pipe = pipe
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        return b"".join(self._parts).decode(errors="replace")

    def end(self) -> str:
        self._thread.join(PATIENCE)
        return self.text

    def _read(self) -> None:
        with self._pipe:
            while part := self._pipe.read1(65536):  # type: ignore[attr-defined]
                self._parts.append(part)
