"""Makes standard error survive a full disk: writes for which there is no space are lost, without an error.

Standard error is often a log file on the same disk as the data.
"""

from __future__ import annotations

import io
import sys
from typing import Any, TextIO

from kt_es.process.space import is_full


class _Forgiving(io.FileIO):
    """The file under standard error. ``lost`` is the number of lost writes since the last successful one."""

    lost = 0
    _ends_line = True

    def write(self, data: Any, /) -> int:
        view = bytes(data)
        try:
            if self.lost and not self._ends_line:
                # The file ends with an incomplete line. The next line must begin on a new one.
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
    """Make a full disk under standard error harmless. Call it once, before any code keeps ``sys.stderr``."""
    try:
        descriptor = sys.stderr.fileno()
    except OSError:
        return  # standard error is not a file
    raw = _Forgiving(descriptor, "w", closefd=False)
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=sys.stderr.encoding,
        errors=sys.stderr.errors,
        line_buffering=True,
    )


def lost_lines(stream: TextIO) -> int:
    """Return the number of lost writes since the last successful one; 0 if ``stream`` does not count them."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw.lost if isinstance(raw, _Forgiving) else 0
