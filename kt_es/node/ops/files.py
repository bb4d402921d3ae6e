"""How many files the process may have open: each connection is one."""

from __future__ import annotations

import contextlib
import math
import resource
from dataclasses import replace

import structlog

from kt_es.node.ops.limits import Limits

_LOG = structlog.get_logger("kt_es.node")
FILES = 1024  # of the data, and whatever else a node opens beside connections
_OPEN = resource.RLIMIT_NOFILE


def possible(limits: Limits) -> Limits:
    """``limits`` with as many connections as this process may have; fewer than wanted are logged."""
    connections = room_for(limits.max_connections)
    if connections < limits.max_connections:
        _LOG.warning(
            "fewer connections than allowed: the system limits open files",
            connections=connections,
            max_connections=limits.max_connections,
        )
    return replace(limits, max_connections=connections)


def room_for(connections: int) -> int:
    """Have the system allow for so many connections; how many of them it allows for.

    Many systems begin with 1,024 files. Connections that may take all of them keep the data from being
    written, and stop the node.
    """
    soft, hard = resource.getrlimit(_OPEN)
    wanted = connections + FILES
    if _number(soft) < wanted:
        wanted = min(wanted, int(min(_number(hard), 1 << 30)))
        # Some systems allow for less than they say.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(_OPEN, (wanted, hard))
            soft = wanted
    if _number(soft) >= connections + FILES:
        return connections
    return min(connections, max(1, soft - min(FILES, soft // 2)))


def _number(limit: int) -> float:
    return math.inf if limit == resource.RLIM_INFINITY else limit
