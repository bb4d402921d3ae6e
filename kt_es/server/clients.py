"""The clients of a front end: their accounts, with a rate for each, and their open connections.

Only the thread of the event loop uses them. An address is a single IPv4 address or an IPv6 /64, which one
customer has; a network is a /24 or a /48. Rates are buckets that may be overdrawn once: the cost of a request
is known when it has arrived, and a client in debt waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import Counter

from kt_es.server.limits import (
    ADDRESS_BYTES,
    ADDRESS_LARGE,
    ADDRESS_REQUESTS,
    ALL_BYTES,
    BURST,
    BYTES_OF_LOOKUP,
    ClientLimits,
    Network,
    Route,
)
from kt_es.server.networks import address_in, is_within, networks_around

MAX_ACCOUNTS = 16_384
_NETWORK_SHARE = 4  # a network may use this many times what one of its addresses may

Uses = Mapping[Network, tuple[float, int]]
"""What clients used: lookups, and the change of the number of connections, of addresses and networks."""


@dataclass(slots=True)
class _Account:
    """The present use by one address or network. ``balance``, in lookups, is as of the time ``at``.

    ``elsewhere`` counts its connections to other processes of this front end.
    """

    key: Network
    balance: float
    at: float
    connections: int = 0
    requests: int = 0
    large: int = 0
    held: int = 0
    elsewhere: int = 0

    @property
    def idle(self) -> bool:
        return not (self.connections or self.elsewhere or self.requests or self.large or self.held)


class Clients:
    """The accounts of all clients; ``clock`` gives seconds."""

    def __init__(self, limits: ClientLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self._clock = clock
        self._accounts: dict[Network, _Account] = {}
        self._uses: dict[Network, tuple[float, int]] = {}
        # Whether another process asks for ``uses``. Otherwise nothing is noted.
        self.is_shared = False

    def origin(self, peer: str, forwarded: Iterable[str]) -> str:
        """Return the client's address: that of the peer, or the one that the peer names as a trusted proxy.

        ``forwarded`` are the values of ``X-Forwarded-For`` in their order. Each trusted proxy appends the
        address that it saw, so the last address that is no trusted proxy is the client. Anybody may have
        written the addresses before it.
        """
        seen = address_in(peer)
        if seen is None or not is_within(seen, self.limits.proxies):
            return peer
        for part in reversed(",".join(forwarded).split(",")):
            named = address_in(part.strip())
            if named is None:
                break
            seen = named
            if not is_within(seen, self.limits.proxies):
                break
        return str(seen)

    def connect(self, peer: str) -> bool:
        """Count a connection. Return False and count nothing if its address or network has too many."""
        bounds = (self.limits.address_connections, self.limits.network_connections)
        accounts = [account for account, _ in self._of(peer, of_connection=True)]
        counts = [account.connections + account.elsewhere for account in accounts]
        if any(count >= bound for count, bound in zip(counts, bounds, strict=False)):
            return False
        for account in accounts:
            account.connections += 1
            self._note(account, 0.0, 1)
        return True

    def disconnect(self, peer: str) -> None:
        for account, _ in self._of(peer, of_connection=True):
            account.connections -= 1
            self._note(account, 0.0, -1)

    def neighbours(self, peer: str) -> int:
        """Return the number of connections of the network of ``peer``, including its own."""
        address = address_in(peer)
        account = None if address is None else self._accounts.get(networks_around(address)[1])
        return 0 if account is None else account.connections

    def hold(self, peer: str, change: int) -> bool:
        """Count bytes that are kept for a connection; return False if address or network keep too many."""
        fits = True
        for position, (account, _) in enumerate(self._of(peer, of_connection=True)):
            account.held += change
            fits = fits and account.held <= ADDRESS_BYTES * (_NETWORK_SHARE if position else 1)
        return fits

    def owes(self, address: str) -> float:
        """Return the seconds until the next request of ``address`` will be answered; 0 if that is now."""
        return max((_wait(account, rate) for account, rate in self._of(address) if rate), default=0.0)

    def enter(self, address: str, route: Route, size: int) -> float | None:
        """Count a request with ``size`` bytes of body. Return None if it may proceed, else seconds to wait.

        The caller gives back a counted request with ``leave``.
        """
        wait = self.owes(address)
        if wait:
            return wait
        accounts = self._of(address)
        for position, (account, _) in enumerate(accounts):
            share = _NETWORK_SHARE if position else 1
            if account.requests >= ADDRESS_REQUESTS * share:
                return 1.0
            if route.large and account.large >= ADDRESS_LARGE * share:
                return 1.0
        for account, rate in accounts:
            account.requests += 1
            account.large += route.large
            if rate:
                cost = route.cost + size / BYTES_OF_LOOKUP
                account.balance -= cost
                self._note(account, cost, 0)
        return None

    def charge(self, address: str, cost: float) -> None:
        """Count work of a request that has entered; ``cost`` is in lookups. Later requests wait for it."""
        for account, rate in self._of(address):
            if rate:
                account.balance -= cost
                self._note(account, cost, 0)

    def leave(self, address: str, *, request: bool = False, large: bool = False) -> None:
        """Give back what ``enter`` counted, in one call or two."""
        for account, _ in self._of(address):
            account.requests -= request
            account.large -= large

    def uses(self) -> Uses:
        """Return what clients used here since the last call, for the other processes of this front end."""
        uses, self._uses = self._uses, {}
        return uses

    def used_elsewhere(self, uses: Uses) -> None:
        """Count what clients used at another process, so that a client has one rate over all processes."""
        for key, (cost, connections) in uses.items():
            single = key.prefixlen in (32, 64)
            account = self._account(key, self.limits.address_rate if single else self.limits.network_rate)
            account.balance -= cost
            account.elsewhere += connections

    def _note(self, account: _Account, cost: float, connections: int) -> None:
        if self.is_shared:
            before = self._uses.get(account.key, (0.0, 0))
            self._uses[account.key] = before[0] + cost, before[1] + connections

    def _of(self, address: str, *, of_connection: bool = False) -> Sequence[tuple[_Account, float]]:
        """Return the accounts of ``address`` with their rates; none if it is exempt.

        Connections of a trusted proxy have no account, because they are those of many clients.
        """
        parsed = address_in(address)
        limits = self.limits
        if parsed is None or is_within(parsed, limits.exempt):
            return ()
        if of_connection and is_within(parsed, limits.proxies):
            return ()
        single, network = networks_around(parsed)
        rates = (single, limits.address_rate), (network, limits.network_rate)
        return [(self._account(key, rate), rate) for key, rate in rates]

    def _account(self, key: Network, rate: float) -> _Account:
        now = self._clock()
        account = self._accounts.get(key)
        if account is None:
            if len(self._accounts) >= MAX_ACCOUNTS:
                self._forget()
            account = self._accounts[key] = _Account(key, rate * BURST, now)
        account.balance = min(rate * BURST, account.balance + (now - account.at) * rate)
        account.at = now
        return account

    def _forget(self) -> None:
        """Drop idle accounts: those unused for long, or else the older half."""
        idle = [key for key, account in self._accounts.items() if account.idle]
        settled = [key for key in idle if self._clock() - self._accounts[key].at > 2 * BURST]
        for key in settled or idle[: len(idle) // 2 + 1]:
            del self._accounts[key]


def _wait(account: _Account, rate: float) -> float:
    return 0.0 if account.balance > 0 else max(1.0, -account.balance / rate)


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

    def limit(self, most: int) -> None:
        """Change ``most``; open connections stay. Any thread may call this."""
        self._most = most

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: OpenConnection) -> bool:
        """Accept a connection. If there are too many, end one that only waits, to make room."""
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
        """Count bytes that are kept for a connection. Return False if its address or network keeps too many.

        If all connections together keep too many, end the one that keeps most.
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
