"""Keeps child processes running: starts them in order, restarts those that die, and stops all cleanly.

A child also ends when its supervisor is gone for any reason: the child holds the read end of a pipe, whose
other end closes with the supervisor.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kt_es.process.outage import Backoff
from kt_es.process.signals import Reloaded, held

PARENT_PIPE = "KT_PARENT_PIPE"
READY_PIPE = "KT_READY_PIPE"
STOP_SECONDS = 15.0
SETTLED = 10.0
"""Seconds after which a process counts as working."""

# Exit codes after which a restart would repeat the refusal: usage, verification, equivocation.
FINAL_CODES = (2, 4, 5)
# A refusal by usage is not final if the process has worked with the same settings: then its disk is faulty,
# or somebody is changing a file at this moment.
USAGE = 2


def end_with_parent() -> None:
    """End this child with SIGTERM when its supervisor is gone."""
    descriptor = os.environ.pop(PARENT_PIPE, None)
    if descriptor is None:
        return

    def wait() -> None:
        os.read(int(descriptor), 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent-watcher", daemon=True).start()


def tell_parent() -> None:
    """Tell the supervisor of this child, if there is one, that the child listens.

    An answer at the child's address proves nothing: it may come from another process.
    """
    descriptor = os.environ.pop(READY_PIPE, None)
    if descriptor is not None:
        os.write(int(descriptor), f"{os.getpid()}\n".encode())
        os.close(int(descriptor))


@dataclass(slots=True)
class Child:
    """One process to keep running. ``arguments`` are those of ``kt``."""

    name: str
    arguments: Sequence[str]
    process: subprocess.Popen[bytes]
    started_at: float
    restarts: int = 0
    final_code: int | None = None
    restart_at: float = 0.0
    backoff: Backoff = field(default_factory=lambda: Backoff(0.3, 5.0))


class Supervisor:
    """Keeps children running. ``report`` gets a sentence for each event; ``changed`` gets the process ids."""

    def __init__(self, report: Callable[[str], None], changed: Callable[[dict[str, int]], None]) -> None:
        self.children: list[Child] = []
        self._report = report
        self._changed = changed
        self._read_end, self._write_end = os.pipe()
        os.set_inheritable(self._read_end, True)
        self._ready_read, self._ready_write = os.pipe()
        os.set_blocking(self._ready_read, False)
        self._ready = b""

    def start(self, name: str, arguments: Sequence[str]) -> Child:
        child = Child(name, arguments, self._spawn(arguments), time.monotonic())
        self.children.append(child)
        self._changed(self.pids)
        return child

    def _spawn(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        pipes = {PARENT_PIPE: str(self._read_end), READY_PIPE: str(self._ready_write)}
        with held():
            return subprocess.Popen(  # noqa: S603 - our own interpreter and our own arguments
                [sys.executable, "-m", "kt_es.cli.main", *arguments],
                stdin=subprocess.DEVNULL,
                pass_fds=(self._read_end, self._ready_write),
                env={**os.environ, **pipes},
                # An interrupt at the terminal goes only to the supervisor, which stops the children in order.
                start_new_session=True,
            )

    @property
    def pids(self) -> dict[str, int]:
        return {child.name: child.process.pid for child in self.children if child.process.poll() is None}

    def listens(self, child: Child) -> bool:
        """Return whether the present process of ``child`` has reported that it listens."""
        with contextlib.suppress(BlockingIOError):
            self._ready += os.read(self._ready_read, 65536)
        return str(child.process.pid).encode() in self._ready.split()

    def reload(self) -> Reloaded:
        """Make every running child read its certificates and limits again."""
        for child in self.children:
            child.process.send_signal(signal.SIGHUP)
        return Reloaded()

    def check(self) -> None:
        """Restart children that died, unless their exit code is final."""
        now = time.monotonic()
        for child in self.children:
            code = child.process.poll()
            if code is None or child.final_code is not None:
                continue
            if child.restart_at == 0.0:
                self._died(child, code, now)
            elif now >= child.restart_at:
                child.restart_at = 0.0
                child.restarts += 1
                child.process, child.started_at = self._spawn(child.arguments), time.monotonic()
                self._changed(self.pids)

    def _died(self, child: Child, code: int, now: float) -> None:
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        is_settled = now - child.started_at > SETTLED
        has_worked = is_settled or child.restarts > 0
        if code in FINAL_CODES and not (code == USAGE and has_worked):
            child.final_code = code
            self._report(f"{child.name} {how}: it is not started again")
            return
        if is_settled:
            child.backoff.reset()
        child.restart_at = now + child.backoff.pause()
        self._report(f"{child.name} {how}: starting it again")

    def stop(self) -> None:
        """Stop all children, the last started first. A child that does not end is killed."""
        for child in reversed(self.children):
            process = child.process
            if process.poll() is not None:
                continue
            # A frozen process would not see SIGTERM before it is woken.
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._report(f"{child.name} does not stop: killing it")
                process.kill()
                process.wait()
        for end in (self._write_end, self._read_end, self._ready_write, self._ready_read):
            os.close(end)
