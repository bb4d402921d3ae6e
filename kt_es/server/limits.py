"""Limits of what one client may use of a front end: sizes, times, counts, and the cost of each route."""

from __future__ import annotations

import ipaddress
import resource
from collections.abc import Sequence
from dataclasses import dataclass

from kt_es.api.batches import MAX_SUBMISSIONS
from kt_es.api.operations import (
    COSIGNATURES,
    HEADS_TILE,
    HISTORY,
    LOOKUPS,
    MAIL_PROOFS,
    MAX_REQUEST,
    MUTATIONS,
    MUTATIONS_BATCH,
    MUTATIONS_TILE,
    RANGE,
    STATUS,
)
from kt_es.api.tiles import BUNDLES
from kt_es.errors import ConfigError
from kt_es.formats.batches import MAX_BATCH
from kt_es.formats.witnessing import ADD_CHECKPOINT
from kt_es.formats.witnessing import MAX_REQUEST as MAX_WITNESS_REQUEST

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_HEAD = 16 * 1024  # request line and headers
MAX_HEADERS = 100
# After the first chunks, the chunks of a body have on average at least this size: each costs a call.
FREE_CHUNKS = 64
SMALLEST_CHUNK = 512
# More than any request has, but for a batch. A body with more is refused before its members are validated.
MAX_MEMBERS = 32
# A body of this size costs the event loop about what a lookup does.
BYTES_OF_LOOKUP = 16 * 1024
# What each label of a batch costs, in lookups. Most of it is the VRF proof of a label that is new here.
LABEL_COST = 0.5
# What a submission costs, in lookups, alone or in a batch.
SUBMISSION_COST = 5.0
MAX_DEPTH = 8
# Members and separators of a submission in a batch.
_SUBMISSION_MEMBERS = 6
MAX_PIPELINED = 32
# Bytes a second. Slower bodies and answers are given up.
SLOWEST = 32 * 1024

# Bytes of bodies without an answer and of unread answers, for one address and for all.
ADDRESS_BYTES = 16 << 20
ALL_BYTES = 128 << 20

MAX_REQUESTS = 256
MAX_LARGE = 16
ADDRESS_REQUESTS = 32
ADDRESS_LARGE = 4
# Seconds. A client that was quiet may send the requests of this time at once.
BURST = 4.0


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """The limits that an operator may set: seconds, counts, and lookups a second.

    ``room_for_connections`` lowers ``connections`` to what the process may open. A rate of 0 is no limit.
    Networks in ``exempt`` have no limits by address. ``X-Forwarded-For`` from ``proxies`` names the client.
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
    """Parse networks or addresses between commas. ``ConfigError`` names the one that is wrong."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            found.append(ipaddress.ip_network(part))
        except ValueError:
            raise ConfigError(f"{part!r} is no network, such as 192.0.2.0/24") from None
    return tuple(found)


def room_for_connections(wanted: int) -> int:
    """Return the smaller one of ``wanted`` and half of the files that this process may open.

    RocksDB and the log use the other half. The soft limit is raised first, as far as the hard limit allows.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * wanted
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft // 2))


@dataclass(frozen=True, slots=True)
class Route:
    """``body`` is in bytes, ``cost`` in lookups. ``large`` answers have few threads of their own.

    ``members`` bounds the members and items of a body, ``levels`` its objects and arrays.
    """

    body: int = MAX_REQUEST
    cost: float = 1.0
    large: bool = False
    members: int = MAX_MEMBERS
    levels: int = MAX_DEPTH


_OTHER = Route()
_ROUTES = {
    MUTATIONS.path: Route(body=MUTATIONS.max_body, cost=SUBMISSION_COST),
    MUTATIONS_BATCH.path: Route(
        body=MUTATIONS_BATCH.max_body,
        cost=SUBMISSION_COST,
        members=MAX_MEMBERS + _SUBMISSION_MEMBERS * MAX_SUBMISSIONS,
        levels=MAX_DEPTH + MAX_SUBMISSIONS,
    ),
    LOOKUPS.path: Route(body=LOOKUPS.max_body, large=True, members=MAX_MEMBERS + MAX_BATCH),
    HISTORY.path: Route(cost=10.0, large=True),
    RANGE.path: Route(cost=10.0, large=True),
    STATUS.path: Route(cost=5.0, large=True),
    MAIL_PROOFS.path: Route(cost=20.0),
    # A witness uses the same server; front ends have no such route.
    f"/{ADD_CHECKPOINT}": Route(body=MAX_WITNESS_REQUEST, cost=5.0),
    COSIGNATURES.path: Route(body=COSIGNATURES.max_body, cost=5.0),
}


_BUNDLES = tuple(tile.path.format(tile=BUNDLES) for tile in (HEADS_TILE, MUTATIONS_TILE))
_BUNDLE = Route(cost=5.0, large=True)


def route_of(path: str) -> Route:
    found = _ROUTES.get(path)
    if found is None:
        return _BUNDLE if path.startswith(_BUNDLES) else _OTHER
    return found
