"""The open connections of a server: how many there are, and which one gives way."""

from __future__ import annotations

from typing import Protocol

from prometheus_client import Counter

from kt_es.server.clients import Clients
from kt_es.server.limits import ALL_BYTES, ClientLimits


class OpenConnection(Protocol):
    """A connection; ``held`` are the bytes that are kept for it."""

    peer: str
    held: int

    @property
    def waits(self) -> bool:
        """Whether it has no request whole and no answer under way."""

    def finish(self) -> None:
        """Close when what has arrived whole is answered."""

    def abort(self) -> None:
        """End it now, unread answers and all."""


class HttpConnections:
    """At most ``most`` connections, in the order in which they came. The event loop's thread's alone."""

    def __init__(self, clients: Clients, most: int, refused: Counter) -> None:
        self.clients = clients
        self.refused = refused
        self.held = 0
        self._most = most
        self._open: dict[OpenConnection, None] = {}

    @property
    def limits(self) -> ClientLimits:
        return self.clients.limits

    def limit(self, most: int) -> None:
        """Take in no more than ``most`` from now on; any thread. Those that are open stay."""
        self._most = most

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: OpenConnection) -> bool:
        """Take it in; if there are too many, in place of one that only waits."""
        if not self.clients.connect(connection.peer):
            self.refused.labels("address-connections").inc()
            return False
        if len(self._open) >= self._most:
            waiting = [other for other in self._open if other.waits]
            if not waiting:
                self.clients.disconnect(connection.peer)
                self.refused.labels("connections").inc()
                return False
            # The oldest of the network that has the most.
            self.refused.labels("displaced").inc()
            max(waiting, key=lambda other: self.clients.neighbours(other.peer)).abort()
        self._open[connection] = None
        return True

    def leave(self, connection: OpenConnection) -> None:
        """It is gone; no matter how often this is said."""
        if connection in self._open:
            del self._open[connection]
            self.clients.disconnect(connection.peer)

    def hold(self, connection: OpenConnection, change: int) -> bool:
        """Count bytes kept for a connection; False if its address or network has too many of them.

        If all together are too many, whichever keeps most is ended.
        """
        self.held += change
        fits = self.clients.hold(connection.peer, change)
        if change > 0 and fits and self.held > ALL_BYTES:
            self.refused.labels("bytes").inc()
            max(self._open, key=lambda other: other.held).abort()
        return fits

    def finish(self) -> None:
        """Close each as soon as the request under way is answered."""
        for connection in list(self._open):
            connection.finish()

    def abort(self) -> None:
        for connection in list(self._open):
            connection.abort()
