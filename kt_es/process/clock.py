"""The clock of this machine, how soon a thread gives the processor up, and how often garbage is sought."""

from __future__ import annotations

import gc
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


def collect_rarely() -> None:
    """Make the interpreter look for garbage rarely. A process that replays or signs calls it once.

    An epoch has some 100,000 objects at the same time. With the default of 700 the garbage collector visits
    them over and over, which costs a fifth of the time of an update of the map.
    """
    gc.set_threshold(50_000, 10, 10)
