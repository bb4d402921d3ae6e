"""What a node bears at most: its limits, and what they may be set to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kt_es.errors import ConfigError

MAX_INT = 2**31 - 1  # of gRPC


@dataclass(frozen=True, slots=True)
class Bound:
    """What a limit may be: ``low`` to ``high``, both included, in ``unit``; ``help`` says what it limits."""

    low: float
    high: float
    unit: str
    help: str


BOUNDS: Mapping[str, Bound] = {
    # EventStoreDB can be set to as much: its largest record without its framing.
    "max_append": Bound(1024, (16 << 20) - 10_000, "BYTES", "What one append carries at most."),
    "max_message": Bound(1024, MAX_INT, "BYTES", "The largest request that is read; at least --max-append."),
    "max_connections": Bound(1, MAX_INT, "N", "Connections at a time."),
    "max_calls": Bound(1, MAX_INT, "N", "Calls at a time; an open subscription is one."),
    "max_groups": Bound(1, MAX_INT, "N", "Persistent subscriptions that exist at a time."),
    # Log-in and what every client sends take about half of that.
    "max_metadata": Bound(4096, MAX_INT, "BYTES", "Headers of one call."),
    "keepalive": Bound(
        0.1,
        86_400,
        "SECONDS",
        "Silence after which a peer is asked for a sign of life, and time it has for that.",
    ),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """See ``BOUNDS``. ``max_connections``, ``max_calls`` and ``max_groups`` hold at the same time.

    Raises:
        ConfigError: one is out of its bounds, or ``max_message`` less than ``max_append``.
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
    """A limit's name in words and options."""
    return name.replace("_", "-")
