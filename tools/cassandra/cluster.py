"""A cluster of one or more nodes in one directory."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from tools.cassandra.errors import CassandraError
from tools.cassandra.jars import find_java, jars
from tools.cassandra.node import Node
from tools.cassandra.settings import CommitlogSync, Place, command, write_settings

HEAP = 512
"""The most MiB of a node's heap. A new node has about 400 MB in memory."""
PATIENCE = 600.0
"""Seconds after which a start has failed. A busy machine needs more than a minute."""

_PLACE = "place.json"


class Cluster:
    """Nodes that listen on loopback addresses of their own. They end with this process, however it ends.

    Each node has a folder in ``directory`` with its data, its configuration and ``node.log``. A later cluster
    with the same directory has the same data and addresses. As a context manager it starts and stops them.

    Args:
        directory: Where everything is stored; it is made if it does not exist.
        nodes: The number of nodes. Keyspaces may have as many replicas.
        heap: The most MiB of each node's heap.
        optimizing: Compile often used code to fast code, for measurements. A start takes twice the CPU then.
        commitlog_sync: "periodic" is Cassandra's default. It is twice as fast, and SIGKILL loses acknowledged
            rows.
        certify: Makes clients need TLS and a password (user and password ``cassandra``). It gets the address
            of a node, and returns a file with the node's key and certificates (PEM). For one node only.

    Raises:
        NotInstalledError: This machine lacks Java, or Maven and its repository to fetch the jars.
        CassandraError: Maven failed in another way, or ``directory`` has another number of nodes.
    """

    def __init__(
        self,
        directory: Path,
        nodes: int = 1,
        heap: int = HEAP,
        *,
        optimizing: bool = False,
        commitlog_sync: CommitlogSync = "batch",
        certify: Callable[[str], Path] | None = None,
    ) -> None:
        if certify is not None and nodes > 1:
            raise CassandraError(f"passwords and TLS are for one node, not for {nodes}")
        java, classes = find_java(), jars()
        directory = directory.absolute()
        directory.mkdir(parents=True, exist_ok=True)
        place = _place(directory, nodes)
        self.addresses = place.addresses
        """The contact points of a client."""
        self.port = place.native_port
        self.nodes: list[Node] = []
        for index, address in enumerate(place.addresses):
            home = directory / f"node{index + 1}"
            write_settings(home, place, index, commitlog_sync, certify and certify(address))
            words = command(java, classes, home, heap, optimizing=optimizing)
            log, secured = home / "node.log", certify is not None
            self.nodes.append(Node(address, self.port, words, log, secured=secured))

    def start(self) -> None:
        """Start the nodes that do not run, and wait until all are ready.

        Raises ``CassandraError`` if a node ends instead; then all are stopped.
        """
        try:
            for node in self.nodes:
                if not node.runs:
                    node.start()
            self.wait()
        except BaseException:
            self.stop()
            raise

    def wait(self, seconds: float = PATIENCE) -> None:
        """Wait until all nodes that run, but the frozen ones, answer clients and see each other.

        Raises ``CassandraError`` if a node ends, or after ``seconds``.
        """
        pause, deadline = threading.Event(), time.monotonic() + seconds
        while (reason := self._unready()) is not None:
            if time.monotonic() > deadline:
                raise CassandraError(f"not within {seconds:.0f} s: {reason}")
            pause.wait(0.1)

    def _unready(self) -> str | None:
        """Return what is still missing."""
        for node in self.nodes:
            node.check()
        running = [node for node in self.nodes if node.runs and not node.is_frozen]
        wanted = {node.address for node in running}
        for node in running:
            if missing := wanted - node.replicas():
                return f"the Cassandra node {node.address} knows {', '.join(sorted(missing))}, see {node.log}"
        return None

    def stop(self) -> None:
        """End all nodes with SIGKILL, the commit logs have what they acknowledged."""
        for node in self.nodes:
            node.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _place(directory: Path, nodes: int) -> Place:
    """Return where the cluster in ``directory`` listens: as before, or at free ports."""
    path = directory / _PLACE
    if path.exists():
        document = json.loads(path.read_text())
        place = Place(tuple(document["addresses"]), document["native_port"], document["storage_port"])
        if len(place.addresses) != nodes:
            raise CassandraError(
                f"{directory} has a cluster of {len(place.addresses)} nodes, not of {nodes}: "
                f"choose another directory"
            )
        return place
    place = _free_place(nodes)
    path.write_text(json.dumps(asdict(place)))
    return place


def _free_place(nodes: int) -> Place:
    """Draw a network 127.x.y.0/24 and find ports that are free on its first addresses.

    Linux delivers all of 127.0.0.0/8 to this machine. The random network keeps clusters apart that are
    started at the same time.
    """
    network = f"127.{random.randint(1, 254)}.{random.randint(0, 255)}"
    addresses = tuple(f"{network}.{index + 1}" for index in range(nodes))
    try:
        with ExitStack() as held:
            native, storage = (_bind(addresses, held) for _ in range(2))
    except OSError as error:
        raise CassandraError(f"cannot listen on {', '.join(addresses)}: {error.strerror or error}") from None
    return Place(addresses, native, storage)


def _bind(addresses: tuple[str, ...], held: ExitStack) -> int:
    """Bind a port that is free on all ``addresses`` until ``held`` is closed, and return it."""
    first, *others = addresses
    port: int = held.enter_context(socket.create_server((first, 0))).getsockname()[1]
    for address in others:
        held.enter_context(socket.create_server((address, port)))
    return port
