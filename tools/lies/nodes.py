"""The operator's event log: two nodes of kt-es, and an address that leads to either of them.

Each universe is written under its own directory name. A ``Line`` listens on one port and forwards to one of
the nodes. When the operator turns the line to the other node, every process finds another log under the
address that it knows.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from kt_es.eventstore.connecting import connect
from kt_es.eventstore.esdb import EsdbLog
from kt_es.eventstore.streams import ANY, Event, NewEvent, StreamNames
from kt_es.formats.entries import OPENING, Opening
from kt_es.formats.heads import MAP_HEAD
from kt_es.formats.queue import RECORDS
from tools.lies.commands import Process
from tools.lies.universe import Universe

CHUNK = 64 * 1024


class Log:
    """One node. ``write`` appends the new events of a universe to its streams."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.target = (host, int(port))
        self.uri = f"esdb://{address}?Tls=false"
        self._lock = threading.Lock()
        self._log: EsdbLog = connect(self.uri)

    def write(
        self,
        name: str,
        universe: Universe,
        *,
        heads: list[bytes] | None = None,
        records: list[bytes] | None = None,
        events: list[tuple[str, bytes]] | None = None,
    ) -> None:
        """Append the events that the streams of the directory ``name`` do not have yet.

        ``heads``, ``records`` and ``events`` replace those of the universe.
        """
        names = StreamNames(name)
        for entry_hash, (opening, profile) in universe.private.items():
            stream = names.openings(universe.mutations[entry_hash].entry.index)
            self._append(stream, OPENING, [Opening(entry_hash, opening, profile).encode()])
        for kind, data in (universe.events if events is None else events)[self._count(names.queue) :]:
            self._append(names.queue, kind, [data])
        found = universe.record_events if records is None else records
        self._append(names.mutations, RECORDS, found[self._count(names.mutations) :])
        signed = [one.event.encode() for one in universe.epochs] if heads is None else heads
        self._append(names.heads, MAP_HEAD, signed[self._count(names.heads) :])

    def append(self, stream: str, kind: str, data: list[bytes]) -> None:
        """Append events to any stream."""
        self._append(stream, kind, data)

    def count(self, stream: str) -> int:
        """Return the number of events of a stream."""
        return self._count(stream)

    def read(self, stream: str) -> list[Event]:
        """Return the events of a stream."""
        with self._lock:
            return list(self._log.read(stream))

    def _count(self, stream: str) -> int:
        with self._lock:
            return self._log.last_revision(stream) + 1

    def _append(self, stream: str, kind: str, data: list[bytes]) -> None:
        if data:
            with self._lock:
                # The ids are random, because the operator may append the same event twice.
                self._log.append(stream, ANY, [NewEvent(kind, one, uuid.uuid4()) for one in data])

    def close(self) -> None:
        self._log.close()


@contextmanager
def running_logs(base: Path) -> Iterator[tuple[Log, Log]]:
    """Run two nodes with ``kt node``, and yield their logs."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(base)}
    with ExitStack() as stack:
        logs = []
        for name in ("one", "other"):
            node = Process(["node", "--data", name, "--listen", "127.0.0.1:0"], environment, base)
            stack.callback(node.stop)
            line = node.wait_for_line("listening on esdb://")
            log = Log(line.partition("esdb://")[2].partition("?")[0])
            stack.callback(log.close)
            logs.append(log)
        yield logs[0], logs[1]


class Line:
    """A port that forwards to ``target``. ``turn`` closes all connections and changes the target."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def uri(self) -> str:
        return f"esdb://127.0.0.1:{self._listener.getsockname()[1]}?Tls=false"

    def turn(self, target: tuple[str, int]) -> None:
        with self._lock:
            self._target = target
        self._cut()

    def close(self) -> None:
        with suppress(OSError):
            # To close the socket alone would not wake the thread that accepts connections.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._cut()

    def _cut(self) -> None:
        with self._lock:
            cut = list(self._open)
            self._open.clear()
        for one in cut:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                near, _ = self._listener.accept()
                with self._lock:
                    target = self._target
                try:
                    far = socket.create_connection(target, 5)
                except OSError:
                    near.close()
                    continue
                far.settimeout(None)
                with self._lock:
                    stale = self._target != target
                    self._open |= {near, far}
                if stale:
                    # The line was turned in the meantime.
                    self._cut()
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        """Forward one direction. Each of the two threads of a connection closes the socket that it reads."""
        with source:
            with suppress(OSError):
                while data := source.recv(CHUNK):
                    sink.sendall(data)
            with self._lock:
                self._open.discard(source)
            for one in (source, sink):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
