"""When the signer puts an epoch advancement marker into the queue. Pure: the clock is passed in."""

from __future__ import annotations

from dataclasses import dataclass

from kt_es.formats.configs import Config


@dataclass(frozen=True, slots=True)
class Schedule:
    """Intervals in seconds, from the config in force; ``batch_limit`` is in items."""

    min_interval: float
    max_interval: float
    batch_limit: int

    @classmethod
    def of(cls, config: Config, batch_limit: int) -> Schedule:
        """The config's promise, with a margin: an epoch also has to be decided, signed and read.

        The heartbeat comes after three quarters of ``max_interval``, so that a head is never the older
        of the two that a client may see.
        """
        return cls(config.min_interval / 1000, config.max_interval / 1000 * 0.75, batch_limit)

    def wants_marker(self, since_last: float, staged: int) -> bool:
        """Whether an epoch should end: ``since_last`` seconds after the last marker, ``staged`` items in.

        Seconds are of a monotonic clock: steps of the wall clock do not matter.
        """
        if staged >= self.batch_limit or since_last >= self.max_interval:
            return True
        return staged > 0 and since_last >= self.min_interval
