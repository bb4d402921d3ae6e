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

    def wants_marker(
        self, since_marker: float, since_head: float, staged: int, *, new_config: bool = False
    ) -> bool:
        """Whether an epoch with ``staged`` items should end.

        With ``new_config`` it is the first epoch under its config. It ends without items, too: the
        operator waits for a head under the new intervals or the new key, after a theft above all.

        ``since_marker`` are seconds of the monotonic clock since this signer's last marker, or since it
        became active. ``since_head`` are seconds of the wall clock since the last head's timestamp: they
        count across restarts, outages and takeovers, so a head that is due comes at once. The monotonic
        clock goes on where the wall clock steps back.
        """
        if staged >= self.batch_limit or max(since_marker, since_head) >= self.max_interval:
            return True
        return (staged > 0 or new_config) and since_marker >= self.min_interval
