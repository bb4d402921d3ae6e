"""What persistent subscriptions are made of: settings, messages, consumers, deliveries."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from kt_es.node.groups.filters import Filter


class Strategy(Enum):
    """To which consumer a message goes."""

    DISPATCH_TO_SINGLE = "DispatchToSingle"
    ROUND_ROBIN = "RoundRobin"
    PINNED = "Pinned"
    PINNED_BY_CORRELATION = "PinnedByCorrelation"

    @property
    def is_pinned(self) -> bool:
        """Whether messages wait for the one consumer that they belong to."""
        return self in {Strategy.PINNED, Strategy.PINNED_BY_CORRELATION}


class Action(Enum):
    """What a negative acknowledgement asks for."""

    UNKNOWN = 0
    PARK = 1
    RETRY = 2
    SKIP = 3
    STOP = 4


@dataclass(frozen=True, slots=True)
class Settings:
    """How a group works. Times are in milliseconds; ``start`` is an order, -1 for "from the end"."""

    start: int = 0
    resolve_links: bool = False
    extra_statistics: bool = False
    message_timeout: int = 30_000
    max_retry_count: int = 10
    min_checkpoint_count: int = 10
    max_checkpoint_count: int = 1000
    checkpoint_after: int = 2_000
    max_subscriber_count: int = 5
    live_buffer_size: int = 500
    read_batch_size: int = 200
    history_buffer_size: int = 500
    strategy: Strategy = Strategy.DISPATCH_TO_SINGLE
    filter: Filter | None = None


@dataclass(slots=True, eq=False)
class Message:
    """An event on its way through a group.

    ``order`` is its revision (in $all: position). ``parked`` is its revision among the parked ones if it
    is replayed from there, else -1. ``payload`` is kept from reading to sending only. ``pin`` decides
    the consumer of a pinned strategy.
    """

    order: int
    id: str
    payload: bytes | None = None
    retries: int = 0
    parked: int = -1
    pin: int = 0
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Peer:
    """Who reads, for information only: address, user and name of the connection, as far as known."""

    address: str = ""
    user: str = ""
    connection: str = ""


class Rate:
    """Counts, and says how many there were a second since ``start`` (seconds of a steady clock)."""

    def __init__(self, start: float) -> None:
        self.total = 0
        self._start = start
        self._measured = 0

    def per_second(self, now: float) -> int:
        """The average so far, over a second at least."""
        return int(self.total / max(now - self._start, 1.0))

    def since_measured(self) -> int:
        """How many came since this was last asked."""
        measured, self._measured = self._measured, self.total
        return self.total - measured


class Consumer:
    """One connected consumer with room for ``capacity`` messages in flight.

    ``number`` is its own among all that the group ever had. ``rate`` counts what it was given.
    """

    def __init__(self, capacity: int, wake: Callable[[], None], peer: Peer | None = None) -> None:
        self.capacity = capacity
        self.wake = wake
        self.peer = peer or Peer()
        self.number = 0
        self.rate = Rate(0.0)
        self.in_flight = 0
        self.held = 0  # bytes of payload in the outbox
        self.outbox: deque[Delivery] = deque()
        self.dropped = False

    @property
    def has_room(self) -> bool:
        """Whether it may be given another message."""
        return self.in_flight < self.capacity and not self.dropped


@dataclass(slots=True, eq=False)
class Delivery:
    """A message given to a consumer. It stays current until it is acknowledged or taken back."""

    message: Message
    consumer: Consumer
    deadline: float
