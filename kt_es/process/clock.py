"""The clock of this machine, and how soon a thread gives it up to another."""

from __future__ import annotations

import sys
import time


def wall_clock() -> int:
    """Return the time of this machine in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def switch_threads_soon() -> None:
    """Make the interpreter switch between threads after 0.5 ms, and not after 5 ms.

    A process calls it once if a thread that answers somebody must not wait for one that computes.
    """
    sys.setswitchinterval(0.0005)
