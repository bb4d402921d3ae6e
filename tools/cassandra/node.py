"""The process of one node: started, killed, frozen, and whether it answers."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tools.cassandra.errors import CassandraError

_GUARDED = Path(__file__).with_name("guarded.py")
# An OPTIONS request of version 4 of the native protocol: version, flags, stream, opcode, length of the body.
_OPTIONS = bytes([0x04, 0, 0, 0, 0x05, 0, 0, 0, 0])
_SUPPORTED = 0x06
_PEER = re.compile(rb"InetAddress /([\d.]+):\d+ is now (UP|DOWN)")
_QUOTED = 25  # lines of the log in an error


class Node:
    """One node. The thread that uses the cluster owns it.

    Args:
        address: the IPv4 address at which it listens.
        port: its port for clients.
        command: what runs it.
        log: the file to which its output is appended.
    """

    def __init__(self, address: str, port: int, command: list[str], log: Path) -> None:
        self.address = address
        self.port = port
        self.log = log
        self._command = command
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

    def spawn(self) -> None:
        """Start the process. It does not answer yet: ``Cluster.start`` and ``Cluster.wait`` wait for that."""
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
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()

    def freeze(self) -> None:
        """Stop the process with SIGSTOP: its connections stay open, and nobody answers."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def answers(self) -> bool:
        """Return whether the port for clients speaks the protocol."""
        try:
            with socket.create_connection((self.address, self.port), timeout=5) as connection:
                connection.sendall(_OPTIONS)
                with connection.makefile("rb") as stream:
                    answer = stream.read(len(_OPTIONS))
        except OSError:
            return False
        return len(answer) == len(_OPTIONS) and answer[4] == _SUPPORTED

    def sees(self) -> set[str]:
        """Return the addresses of the other nodes that this node takes for alive, as its log says."""
        alive: set[str] = set()
        for address, state in _PEER.findall(self._said()):
            (alive.add if state == b"UP" else alive.discard)(address.decode())
        return alive

    def check(self) -> None:
        """Raise ``CassandraError``, with the end of the log, if the process ended by itself."""
        process = self._process
        if process is not None and process.poll() is not None:
            lines = self._said().decode(errors="replace").splitlines()[-_QUOTED:]
            raise CassandraError(
                f"the Cassandra node {self.address} ended with exit code {process.returncode}; "
                f"the end of its log, {self.log}:\n" + "\n".join(lines)
            )

    def _said(self) -> bytes:
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read()

    def _running(self) -> subprocess.Popen[bytes]:
        self.check()
        if self._process is None:
            raise CassandraError(f"the Cassandra node {self.address} does not run")
        return self._process
