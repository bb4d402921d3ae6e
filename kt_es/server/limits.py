"""What one client may take of a front end: sizes, times and counts, and what each route costs."""

from __future__ import annotations

import ipaddress
import resource
from collections.abc import Sequence
from dataclasses import dataclass

from kt_es.api.operations import HISTORY, MAX_REQUEST, MUTATIONS, RANGE
from kt_es.errors import ConfigError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_HEAD = 16 * 1024  # request line and headers
MAX_HEADERS = 100
# Chunks of a body beyond the first ones have on average at least so many bytes: each costs the parser a call.
FREE_CHUNKS = 64
SMALLEST_CHUNK = 512
# No request has that many: what has more is refused before it is validated, member by member.
MAX_MEMBERS = 32
MAX_DEPTH = 8
MAX_PIPELINED = 32
# Slower than that, bodies and answers are given up.
SLOWEST = 32 * 1024

# Bodies until they are answered and answers until they are read, of one address and of all.
ADDRESS_BYTES = 16 << 20
ALL_BYTES = 128 << 20

MAX_REQUESTS = 256
MAX_LARGE = 16
ADDRESS_REQUESTS = 32
ADDRESS_LARGE = 4
# A client that was quiet may ask for so many seconds' worth at once.
BURST = 4.0


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """What an operator may set; seconds, counts, requests a second.

    ``connections`` is lowered to what the process may open, see ``room_for_connections``. ``rate`` and
    ``network_rate`` 0 are no limit. ``exempt`` are networks without limits of their own, ``proxies`` those
    whose ``X-Forwarded-For`` names the client.
    """

    head_seconds: float = 10.0
    body_seconds: float = 10.0
    idle_seconds: float = 30.0
    answer_seconds: float = 20.0
    connections: int = 2048
    address_connections: int = 64
    network_connections: int = 256
    address_rate: float = 50.0
    network_rate: float = 200.0
    exempt: Sequence[Network] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
    proxies: Sequence[Network] = ()


DEFAULT_LIMITS = ClientLimits()


def networks_of(text: str) -> tuple[Network, ...]:
    """Networks or addresses, separated by commas; ``ConfigError`` names the one that is wrong."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            found.append(ipaddress.ip_network(part))
        except ValueError:
            raise ConfigError(f"{part!r} is no network, such as 192.0.2.0/24") from None
    return tuple(found)


def room_for_connections(wanted: int) -> int:
    """``wanted``, or half of the files that this process may open: the other half is RocksDB's and the log's.

    The soft limit is raised first, as far as the hard one allows.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * wanted
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft // 2))


@dataclass(frozen=True, slots=True)
class Route:
    """``cost`` is in lookups. ``large`` answers are made apart from lookups, few at a time."""

    body: int = MAX_REQUEST
    cost: float = 1.0
    large: bool = False


_OTHER = Route()
_ROUTES = {
    MUTATIONS.path: Route(body=MUTATIONS.max_body, cost=5.0),
    HISTORY.path: Route(cost=10.0, large=True),
    RANGE.path: Route(cost=10.0, large=True),
}


def route_of(path: str) -> Route:
    return _ROUTES.get(path, _OTHER)
