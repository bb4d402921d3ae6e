"""One process that verifies signatures ahead, as its parent sees it: requests, answers and the end.

``verifier`` is the program that runs in the process. All calls return at once, and whoever calls holds the
lock of ``Verifiers``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from kt_es.formats.facts import FACT_SIZE
from kt_es.ledger.verifier import ANSWER, REQUEST

PIPE: Final = 1 << 20
"""Bytes of the pipe to a process. A process does not run out of work while the decision handles an event."""
_PIECES: Final = 64
_READ: Final = 64 << 10


@dataclass(slots=True, eq=False)
class Asked:
    """An event of ``size`` bytes whose facts come from ``by``. Without a process they are empty at once.

    ``request``, its kind and data, is there until a process gets it or the event is decided.
    """

    size: int
    request: tuple[int, bytes] | None
    facts: frozenset[bytes] | None = frozenset()
    by: VerifierProcess | None = None


@dataclass(slots=True, eq=False)
class VerifierProcess:
    """A process, what it was asked, and the bytes on the way to it.

    Attributes:
        is_ready: Whether it has answered at all. The start of Python takes a while.
        heard_at: When it answered last, or when it was started, in seconds of ``time.monotonic``.
        backlog: Bytes of ``sending``.
    """

    process: subprocess.Popen[bytes]
    requests: int  # file descriptors
    answers: int
    heard_at: float
    is_ready: bool = False
    backlog: int = 0
    asked: deque[Asked] = field(default_factory=deque)
    sending: deque[memoryview] = field(default_factory=deque)
    received: bytearray = field(default_factory=bytearray)

    @classmethod
    def start(cls, origin: str) -> VerifierProcess:
        """Start a process for the directory ``origin``. Raises ``OSError``."""
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own arguments
            [sys.executable, "-m", "kt_es.ledger.verifier", origin],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            # An interrupt at the terminal is for the parent.
            start_new_session=True,
        )
        if process.stdin is None or process.stdout is None:
            raise OSError("the process has no pipes")
        requests, answers = process.stdin.fileno(), process.stdout.fileno()
        os.set_blocking(requests, False)
        os.set_blocking(answers, False)
        _enlarge(requests)
        return cls(process, requests, answers, time.monotonic())

    def ask(self, asked: Asked) -> None:
        """Queue the request of ``asked``, unless it was decided. ``exchange`` sends it."""
        if asked.request is None:
            return
        kind, data = asked.request
        asked.request, asked.facts, asked.by = None, None, self
        self.asked.append(asked)
        self.sending += (memoryview(REQUEST.pack(kind, len(data))), memoryview(data))
        self.backlog += REQUEST.size + len(data)

    def exchange(self) -> None:
        """Write what the pipe takes, and read the answers that have come.

        Raises:
            OSError: The process has ended.
        """
        with suppress(BlockingIOError):
            while self.sending:
                self._sent(os.writev(self.requests, list(islice(self.sending, _PIECES))))
        with suppress(BlockingIOError):
            while data := os.read(self.answers, _READ):
                self.received += data
                self.heard_at = time.monotonic()
            raise BrokenPipeError("it has closed its output")
        self._take_answers()

    def _sent(self, count: int) -> None:
        self.backlog -= count
        while count:
            first = self.sending.popleft()
            if len(first) > count:
                self.sending.appendleft(first[count:])
                return
            count -= len(first)

    def _take_answers(self) -> None:
        at = 0
        while len(self.received) - at >= ANSWER.size:
            (count,) = ANSWER.unpack_from(self.received, at)
            start, end = at + ANSWER.size, at + ANSWER.size + count * FACT_SIZE
            if len(self.received) < end:
                break
            facts, at = bytes(self.received[start:end]), end
            if self.is_ready:
                if not self.asked:
                    raise OSError("it has answered what it was not asked")
                self.asked.popleft().facts = frozenset(
                    facts[low : low + FACT_SIZE] for low in range(0, len(facts), FACT_SIZE)
                )
            self.is_ready = True
        del self.received[:at]

    def end(self) -> None:
        """Kill the process, which has nothing to lose. Its events have no facts."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        for asked in self.asked:
            asked.facts = frozenset()
        self.asked.clear()
        self.sending.clear()


def _enlarge(pipe: int) -> None:
    """Make a pipe larger where the system can. A smaller one works too, but its process waits more often."""
    if sys.platform == "linux":
        import fcntl

        with suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE)
