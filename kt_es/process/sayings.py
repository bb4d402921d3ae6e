"""Standard error that a full disk does not close: what has no room is lost, and the process goes on.

The log of a process is often a file on the disk that is full.
"""

from __future__ import annotations

import io
import sys
from typing import Any, TextIO

from kt_es.process.space import is_full


class _Forgiving(io.FileIO):
    """The file under standard error. ``lost`` writes had no room since the last one that had."""

    lost = 0
    _ends_line = True

    def write(self, data: Any, /) -> int:
        view = bytes(data)
        try:
            if self.lost and not self._ends_line:
                # Half a line is there: the next one begins on its own.
                super().write(b"\n")
                self._ends_line = True
            written = super().write(view)
        except OSError as error:
            if not is_full(error):
                raise
            self.lost += 1
            return len(view)
        self.lost = 0
        self._ends_line = view[:written].endswith(b"\n")
        return written


def forgive_full_disk() -> None:
    """Go on when standard error has no room. To be called once, before anybody keeps ``sys.stderr``."""
    try:
        descriptor = sys.stderr.fileno()
    except OSError:
        return  # it is no file
    raw = _Forgiving(descriptor, "w", closefd=False)
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=sys.stderr.encoding,
        errors=sys.stderr.errors,
        line_buffering=True,
    )


def lost_lines(stream: TextIO) -> int:
    """How many writes to ``stream``, a standard error as above, had no room since the last one that had."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw.lost if isinstance(raw, _Forgiving) else 0
