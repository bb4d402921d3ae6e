"""The program of ``tools/akd`` as a process beside a measurement: it publishes changed labels."""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from kt_es.cli.trials.bench_signer import STOP_SECONDS
from kt_es.errors import ConfigError, KtError

AKD_ENTRIES = 100_000
"""Labels at most: AKD needs some 9 kB of memory for each."""


class AkdProgram:
    """The running program. It has published ``entries`` labels, and waits between its turns."""

    def __init__(self, program: Path, entries: int, changed: int) -> None:
        """Start ``program``, and wait until the labels are published.

        Raises:
            ConfigError: The program cannot be started.
            KtError: It ended.
        """
        command = [str(program), str(entries), str(changed)]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the program that the caller names
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        except OSError as error:
            raise ConfigError(
                f"{program} cannot be started ({error.strerror}): build it as tools/akd/README.md says"
            ) from None
        self._answer()

    def turn(self) -> float:
        """Return the changed labels a second of one epoch."""
        if self._process.stdin is not None:
            # A program that has ended gives no answer either, which is an error below.
            with suppress(BrokenPipeError):
                self._process.stdin.write("\n")
                self._process.stdin.flush()
        return float(self._answer()["labels_per_second"])

    def close(self) -> None:
        """End the program."""
        self._process.communicate(timeout=STOP_SECONDS)

    def _answer(self) -> dict[str, Any]:
        line = "" if self._process.stdout is None else self._process.stdout.readline()
        if not line:
            self._process.kill()
            self._process.communicate()
            raise KtError(f"{self._process.args!r} ended without an answer: see its message above")
        found: dict[str, Any] = json.loads(line)
        return found
