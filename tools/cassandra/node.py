"""The process of one node: started, killed, frozen, and whether it answers."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

from tools.cassandra.errors import CassandraError
from tools.cassandra.protocol import peers

_GUARDED = Path(__file__).with_name("guarded.py")
_ALIVE = re.compile(rb"InetAddress /([\d.]+):\d+ is now (UP|DOWN)")
_QUOTED = 25  # lines of the log in an error


class Node:
    """One node. The thread that uses the cluster owns it.

    Args:
        address: The IPv4 address at which it listens.
        port: Its port for clients.
        command: What runs it.
        log: The file to which its output is appended.
        secured: Whether it asks clients for TLS and a password.
    """

    def __init__(
        self, address: str, port: int, command: list[str], log: Path, *, secured: bool = False
    ) -> None:
        self.address = address
        self.port = port
        self.log = log
        self._command = command
        self._secured = secured
        self.is_frozen = False
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        """Length of the log when the present process was started."""

    @property
    def pid(self) -> int:
        """The process ID. Raises ``CassandraError`` if the node does not run."""
        return self._running().pid

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process. It does not answer yet: ``Cluster.wait`` waits for that."""
        if self.runs:
            raise CassandraError(f"the node {self.address} runs already")
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-S", str(_GUARDED), *self._command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.log.parent,
                # An interrupt at the terminal goes only to the parent, which decides what ends.
                start_new_session=True,
            )

    def kill(self) -> None:
        """End the process with SIGKILL, and wait until it is gone. Nothing happens if it does not run."""
        process, self._process, self.is_frozen = self._process, None, False
        if process is not None:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()

    def freeze(self) -> None:
        """Stop the process with SIGSTOP: its connections stay open, and nobody answers."""
        self._running().send_signal(signal.SIGSTOP)
        self.is_frozen = True

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self._running().send_signal(signal.SIGCONT)
        self.is_frozen = False

    def answers(self) -> bool:
        """Return whether the node answers clients."""
        return peers(self.address, self.port, secured=self._secured) is not None

    def replicas(self) -> set[str]:
        """Return the addresses of the nodes that would get rows from this one; none if it does not answer."""
        known = peers(self.address, self.port, secured=self._secured)
        if known is None:
            return set()
        # The log says who is alive.
        last = dict(_ALIVE.findall(self._output()))
        alive = {address.decode() for address, state in last.items() if state == b"UP"}
        return {self.address} | (known & alive)

    def check(self) -> None:
        """Raise ``CassandraError``, with the end of the log, if the process ended by itself."""
        process = self._process
        if process is not None and process.poll() is not None:
            lines = self._output().decode(errors="replace").splitlines()[-_QUOTED:]
            raise CassandraError(
                f"the Cassandra node {self.address} ended with exit code {process.returncode}; "
                f"the end of its log, {self.log}:\n" + "\n".join(lines)
            )

    def _output(self) -> bytes:
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read()

    def _running(self) -> subprocess.Popen[bytes]:
        self.check()
        if self._process is None:
            raise CassandraError(f"the Cassandra node {self.address} does not run")
        return self._process
