"""How far a group is: what it has read, what of that is not settled yet, and the checkpoint to write."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from kt_es.node.groups.values import Message, Settings

LAZY = 4096  # settled entries that may wait in a queue before they are swept out


class Progress:
    """The orders of messages between a group's checkpoint and ``cursor``, the next one to read.

    A group that starts again, because it was changed or the node was restarted, goes on at ``checkpoint``:
    what was settled behind it is delivered again. ``known`` is the order of the last message read, -1 if
    there was none yet.
    """

    def __init__(self, settings: Settings, cursor: int, now: float) -> None:
        self.cursor = cursor
        self.checkpoint = cursor
        self.known = -1
        self._settings = settings
        self._outstanding: dict[int, int] = {}  # by order: how many events were read before
        self._ascending: deque[int] = deque()  # those outstanding, and some that are settled
        self._read = 0  # events, those included that a filter passed over
        self._checkpointed = 0  # of them, below the checkpoint
        self._time = now

    def read(self, messages: Iterable[Message], cursor: int, passed_over: int) -> None:
        """Messages were read, in order; reading goes on at ``cursor``.

        ``passed_over`` is how many more were looked at and did not pass the filter.
        """
        for message in messages:
            self._outstanding[message.order] = self._read
            self._ascending.append(message.order)
            self._read += 1
            self.known = message.order
        self._read += passed_over
        self.cursor = cursor
        # Behind one message that stays unsettled for long, those that are settled would pile up.
        if len(self._ascending) > 2 * len(self._outstanding) + LAZY:
            self._ascending = deque(sorted(self._outstanding))

    def settle(self, message: Message) -> None:
        """Nothing more is to be done for ``message``."""
        if message.parked < 0:
            self._outstanding.pop(message.order, None)

    def low(self) -> int:
        """The order of the lowest message that is not settled: all below are."""
        orders = self._ascending
        while orders and orders[0] not in self._outstanding:
            orders.popleft()
        return orders[0] if orders else self.cursor

    def due(self, now: float) -> int | None:
        """The checkpoint to write now, if one is due: when ``max_checkpoint_count`` events are done since the
        last one; after ``checkpoint_after`` if ``min_checkpoint_count`` are. Done are those below the lowest
        that is not settled, and what the filter passed over there."""
        done = self._done()
        enough = done >= max(self._settings.max_checkpoint_count, 1)
        if not enough and not (self._is_worth_it(done) and now >= self._deadline()):
            return None
        low = self.low()
        return low if low > self.checkpoint else None

    def written(self, order: int, now: float) -> None:
        """The checkpoint ``order``, which is that of ``low``, is being written."""
        self._checkpointed += self._done()
        self.checkpoint = order
        self._time = now

    def deadline(self, now: float) -> float | None:
        """When ``due`` should be asked next, if nothing happens before."""
        if self._is_worth_it(self._done()) and self.low() > self.checkpoint:
            return max(self._deadline(), now)
        return None

    def _done(self) -> int:
        return self._outstanding.get(self.low(), self._read) - self._checkpointed

    def _is_worth_it(self, done: int) -> bool:
        return done >= max(self._settings.min_checkpoint_count, 1)

    def _deadline(self) -> float:
        return self._time + self._settings.checkpoint_after / 1000
