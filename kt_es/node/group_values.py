"""What persistent subscriptions are made of: settings, messages, consumers, deliveries."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from kt_es.node.filters import Filter


class Strategy(Enum):
    """To which consumer a message goes."""

    DISPATCH_TO_SINGLE = "DispatchToSingle"
    ROUND_ROBIN = "RoundRobin"
    PINNED = "Pinned"


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


class Consumer:
    """One connected consumer with room for ``capacity`` messages in flight."""

    def __init__(self, capacity: int, wake: Callable[[], None]) -> None:
        self.capacity = capacity
        self.wake = wake
        self.in_flight = 0
        self.outbox: deque[Delivery] = deque()
        self.dropped = False
        self.total = 0


@dataclass(slots=True, eq=False)
class Delivery:
    """A message given to a consumer. It stays current until it is acknowledged or taken back."""

    message: Message
    consumer: Consumer
    deadline: float
