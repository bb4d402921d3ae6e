"""The limits of a node, the bounds of each limit, and the number of files that the process may open."""

from __future__ import annotations

import contextlib
import math
import resource
from collections.abc import Mapping
from dataclasses import dataclass, replace

import structlog

from kt_es.errors import ConfigError

_LOG = structlog.get_logger("kt_es.node")
MAX_INT = 2**31 - 1  # of gRPC
FILES = 1024  # open files of the data and of everything else beside connections
_OPEN = resource.RLIMIT_NOFILE


@dataclass(frozen=True, slots=True)
class Bound:
    """The range of a limit, ``low`` to ``high`` inclusive in ``unit``; ``help`` describes the limit."""

    low: float
    high: float
    unit: str
    help: str


BOUNDS: Mapping[str, Bound] = {
    # EventStoreDB allows as much: its largest record without the framing.
    "max_append": Bound(1024, (16 << 20) - 10_000, "BYTES", "The largest append."),
    "max_message": Bound(1024, MAX_INT, "BYTES", "The largest request that is read; at least --max-append."),
    "max_connections": Bound(1, MAX_INT, "N", "Connections at a time."),
    "max_calls": Bound(1, MAX_INT, "N", "Calls at a time; an open subscription is one."),
    "max_groups": Bound(1, MAX_INT, "N", "Persistent subscriptions that exist at a time."),
    # A login and what every client sends take about half of it.
    "max_metadata": Bound(4096, MAX_INT, "BYTES", "Headers of one call."),
    "keepalive": Bound(
        0.1,
        86_400,
        "SECONDS",
        "Silence after which a peer is asked for a sign of life, and time it has for that.",
    ),
}


@dataclass(frozen=True, slots=True)
class NodeLimits:
    """See ``BOUNDS``. ``max_connections``, ``max_calls`` and ``max_groups`` hold at the same time.

    Raises ``ConfigError`` for a limit out of its bounds, and for a ``max_message`` below ``max_append``.
    """

    max_append: int = 1 << 20
    max_message: int = 16 << 20
    max_connections: int = 4_000
    max_calls: int = 10_000
    max_groups: int = 10_000
    max_metadata: int = 16 << 10
    keepalive: float = 10.0

    def __post_init__(self) -> None:
        for name, bound in BOUNDS.items():
            value = getattr(self, name)
            if not bound.low <= value <= bound.high:
                raise ConfigError(f"{spelled(name)} {value} is not in the range {bound.low} to {bound.high}")
        if self.max_message < self.max_append:
            raise ConfigError(
                f"max-message {self.max_message} is less than max-append {self.max_append}: "
                f"the largest appends would not be read"
            )


def spelled(name: str) -> str:
    """Return a limit's name in words and options."""
    return name.replace("_", "-")


def possible(limits: NodeLimits) -> NodeLimits:
    """Return ``limits`` with no more connections than this process may have, and log a lower number."""
    connections = room_for(limits.max_connections)
    if connections < limits.max_connections:
        _LOG.warning(
            "fewer connections than allowed: the system limits open files",
            connections=connections,
            max_connections=limits.max_connections,
        )
    return replace(limits, max_connections=connections)


def room_for(connections: int) -> int:
    """Raise the limit of open files for so many connections; return how many connections it then allows.

    Each connection is a file, and many systems start with 1,024 files. Connections that took them all would
    keep the data from being written, and stop the node.
    """
    soft, hard = resource.getrlimit(_OPEN)
    wanted = connections + FILES
    if _number(soft) < wanted:
        wanted = min(wanted, int(min(_number(hard), 1 << 30)))
        # Some systems allow less than their hard limit.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(_OPEN, (wanted, hard))
            soft = wanted
    if _number(soft) >= connections + FILES:
        return connections
    return min(connections, max(1, soft - min(FILES, soft // 2)))


def _number(limit: int) -> float:
    return math.inf if limit == resource.RLIM_INFINITY else limit
