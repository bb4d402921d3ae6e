"""Monitors that replay both logs from a front end, and then look at it for good."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kt_es.cli.addresses import free_address
from kt_es.cli.operators.status_parts import ScrapedMetrics
from kt_es.cli.trials.asking import ask
from kt_es.config.tables import Address

INTERVAL = 1
"""Seconds between two looks of a monitor."""


class Monitors:
    """Processes ``kt monitor --from``, each with a state of its own."""

    def __init__(self, processes: list[subprocess.Popen[bytes]], pages: list[Address]) -> None:
        self._processes = processes
        self._pages = pages

    def have_verified(self, epoch: int) -> bool | None:
        """Return True if all of them have replayed everything up to ``epoch``, None otherwise."""
        return True if all(_verified(page) >= epoch for page in self._pages) else None

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Keep them from looking, without the start that a new process takes."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes:
            process.send_signal(number)


def _verified(page: Address) -> float:
    """Return the latest epoch that a monitor has verified, 0 before the first one."""
    try:
        metrics = ScrapedMetrics(ask(page, "GET", "/metrics")[1].decode())
    except OSError:
        return 0.0
    return metrics.value("kt_monitor_epoch") or 0.0


@contextmanager
def monitors(count: int, where: Address, vkey: str, base: Path) -> Iterator[Monitors]:
    """Run ``count`` monitors of the directory with ``vkey``, which the front end ``where`` serves.

    Their states are in ``base``.
    """
    processes: list[subprocess.Popen[bytes]] = []
    pages = [free_address() for _ in range(count)]
    with ExitStack() as stack:
        for number, page in enumerate(pages):
            words = ["--from", f"http://{where}", "--vkey", vkey, "--interval", str(INTERVAL)]
            words += ["--data", str(base / f"monitor{number}"), "--metrics", str(page)]
            process = stack.enter_context(
                subprocess.Popen(  # noqa: S603 - our own interpreter and our own arguments
                    [sys.executable, "-m", "kt_es.cli.main", "-q", "monitor", *words],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={name: value for name, value in os.environ.items() if not name.startswith("KT_")},
                )
            )
            processes.append(process)
            stack.callback(process.kill)
        yield Monitors(processes, pages)
