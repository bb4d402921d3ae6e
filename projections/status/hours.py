"""How many heads each hour had, found in the heads that were verified.

Timestamps of heads grow from epoch to epoch, so the number of heads between two times is the difference of
two epochs, and each of them is found in a few reads. Nothing has to be counted, so a restart loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

HOUR = 3_600_000


@dataclass(frozen=True, slots=True)
class Hour:
    """The hour that begins at ``start`` (ms since 1970), and its heads; None if they are not known here."""

    start: int
    heads: int | None


class Hours:
    """Finds epochs by time. One thread at a time may use it.

    ``timestamp_of`` returns the timestamp of a verified epoch, in ms.
    """

    def __init__(self, timestamp_of: Callable[[int], int]) -> None:
        self._timestamp_of = timestamp_of
        # The first epoch at or after a time. It cannot change once a later head is verified.
        self._found: dict[int, int] = {}

    def last(self, count: int, now: int, oldest: int, newest: int) -> list[Hour]:
        """Return the last ``count`` hours up to the one of ``now``, the oldest one first.

        Args:
            count: The number of hours.
            now: The time, in ms since 1970.
            oldest: The first epoch whose head is known.
            newest: The last epoch that was verified; 0 if there is none.
        """
        begin = now // HOUR * HOUR - (count - 1) * HOUR
        starts = [begin + number * HOUR for number in range(count + 1)]
        if not newest:
            return [Hour(start, 0) for start in starts[:-1]]
        firsts = [0] * len(starts)
        after = newest + 1
        # From the newest boundary backwards, so that a search begins near its result.
        for at in range(count, -1, -1):
            after = firsts[at] = self._first(starts[at], oldest, after, newest)
        known_since = self._timestamp_of(oldest) if oldest > 1 else begin
        self._found = {start: epoch for start, epoch in self._found.items() if start >= begin}
        return [
            Hour(starts[at], None if starts[at] < known_since else firsts[at + 1] - firsts[at])
            for at in range(count)
        ]

    def _first(self, time: int, oldest: int, after: int, newest: int) -> int:
        """Return the first epoch at or after ``time``, in ``oldest`` to ``after``.

        Epoch ``after`` is at or after ``time``, or one more than the newest.
        """
        if (known := self._found.get(time)) is not None:
            return known
        low, high, step = oldest, after, 1
        while high > low and self._timestamp_of(max(low, high - step)) >= time:
            high = max(low, high - step)
            step *= 2
        # Now everything before ``bottom`` is earlier than ``time``, and ``high`` is not.
        bottom = max(low, high - step) if high > low else high
        while bottom < high:
            middle = (bottom + high) // 2
            if self._timestamp_of(middle) < time:
                bottom = middle + 1
            else:
                high = middle
        if high <= newest:
            self._found[time] = high
        return high
