"""What bounds the signer's loop, and what the loop takes from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kt_es.eventstore.streams import EventLog


@dataclass(frozen=True, slots=True)
class EpochLimits:
    """What bounds the loop. Times in seconds, sizes in bytes."""

    batch_limit: int = 100_000  # items after which an epoch ends early
    outbox: int = 768 * 1024  # records that are appended at once; the server takes 1 MiB
    unacknowledged: int = 1_500  # deliveries after which the stream is read instead
    patience: float = 0.25  # how long a marker may take to come back before the stream is read
    watchdog: float = 10.0  # how long silence is believed
    patrol: float = 1.0  # how often a little of what is published is read again
    truncate: bool = False  # whether the queue is truncated behind the last head


@dataclass(frozen=True, slots=True)
class Effects:
    """Everything the loop takes from outside, beside the log itself."""

    connect: Callable[[], EventLog]  # a fresh client: the watchdog asks through its own
    now: Callable[[], int]  # wall clock, ms
    monotonic: Callable[[], float]  # seconds
    nonce: Callable[[], bytes]  # 16 random bytes
