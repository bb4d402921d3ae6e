"""Program that becomes another program, which ends when the parent ends.

  python guarded.py COMMAND...

The standard input is a pipe whose other end only the parent holds. The pipe closes with the parent, whatever
ended it, and then COMMAND is killed. The process ID of this program becomes the ID of COMMAND.
"""

from __future__ import annotations

import os
import select
import signal
import sys


def guard(pipe: int, process: int) -> None:
    """Wait until the parent or ``process``, a descriptor, ends. Kill ``process`` if the parent ended."""
    events = select.poll()
    events.register(pipe, select.POLLHUP)
    events.register(process, select.POLLIN)
    ended = {descriptor for descriptor, _ in events.poll()}
    if process not in ended:
        # Unlike a process ID, the descriptor never means another process.
        signal.pidfd_send_signal(process, signal.SIGKILL)


def main(command: list[str]) -> None:
    process = os.pidfd_open(os.getpid())
    if os.fork() == 0:
        guard(sys.stdin.fileno(), process)
        os._exit(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, sys.stdin.fileno())
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
