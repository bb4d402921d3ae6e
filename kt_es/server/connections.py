"""The open connections of a server: how many there are, and which one is ended for a new one."""

from __future__ import annotations

from typing import Protocol

from prometheus_client import Counter

from kt_es.server.clients import Clients
from kt_es.server.limits import ALL_BYTES, ClientLimits


class OpenConnection(Protocol):
    """A connection. ``held`` is the number of bytes that are kept for it."""

    peer: str
    held: int

    @property
    def waits(self) -> bool:
        """Whether it has neither a whole request nor an answer under way."""

    def finish(self) -> None:
        """Close after the answers to the requests that have arrived whole."""

    def abort(self) -> None:
        """Close now, even if answers are unread."""


class HttpConnections:
    """At most ``most`` connections, the oldest first. Only the thread of the event loop uses them."""

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
        """Change ``most``; open connections stay. Any thread may call this."""
        self._most = most

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: OpenConnection) -> bool:
        """Accept a connection. If there are too many, one that only waits is ended for it."""
        if not self.clients.connect(connection.peer):
            self.refused.labels("address-connections").inc()
            return False
        if len(self._open) >= self._most:
            waiting = [other for other in self._open if other.waits]
            if not waiting:
                self.clients.disconnect(connection.peer)
                self.refused.labels("connections").inc()
                return False
            # The oldest one of the network that has the most connections.
            self.refused.labels("displaced").inc()
            max(waiting, key=lambda other: self.clients.neighbours(other.peer)).abort()
        self._open[connection] = None
        return True

    def leave(self, connection: OpenConnection) -> None:
        """Forget a connection that has ended. Repeated calls do nothing."""
        if connection in self._open:
            del self._open[connection]
            self.clients.disconnect(connection.peer)

    def hold(self, connection: OpenConnection, change: int) -> bool:
        """Count bytes that are kept for a connection; False if its address or network keeps too many.

        If all connections together keep too many, the one that keeps most is ended.
        """
        self.held += change
        fits = self.clients.hold(connection.peer, change)
        if change > 0 and fits and self.held > ALL_BYTES:
            self.refused.labels("bytes").inc()
            max(self._open, key=lambda other: other.held).abort()
        return fits

    def finish(self) -> None:
        """Close every connection after the answer under way."""
        for connection in list(self._open):
            connection.finish()

    def abort(self) -> None:
        for connection in list(self._open):
            connection.abort()
