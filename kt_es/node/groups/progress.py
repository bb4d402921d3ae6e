"""How far a group is: what it has read, what of that is not settled yet, and the checkpoint to write."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from kt_es.node.groups.consumers import Message
from kt_es.node.groups.settings import GroupSettings

LAZY = 4096  # settled entries that may wait in a queue before they are swept out


class GroupProgress:
    """The orders of messages between a group's checkpoint and ``cursor``, the next one to read.

    A group that was changed, or whose node was restarted, resumes at ``checkpoint``: what was settled behind
    it is delivered again. ``known`` is the order of the last message read, -1 before the first.
    """

    def __init__(self, settings: GroupSettings, cursor: int, now: float) -> None:
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
        """Note messages that were read, in order.

        Args:
            messages: Those that passed the filter.
            cursor: The order to read next.
            passed_over: How many events did not pass the filter.
        """
        for message in messages:
            self._outstanding[message.order] = self._read
            self._ascending.append(message.order)
            self._read += 1
            self.known = message.order
        self._read += passed_over
        self.cursor = cursor
        # Behind a message that stays unsettled for long, settled ones would pile up.
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
        """The checkpoint to write at ``now``, if one is due.

        One is due when ``max_checkpoint_count`` events are done since the last one, or after
        ``checkpoint_after`` when ``min_checkpoint_count`` are. An event is done if no message up to it is
        unsettled.
        """
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
        """When to call ``due`` next, if nothing happens before."""
        if self._is_worth_it(self._done()) and self.low() > self.checkpoint:
            return max(self._deadline(), now)
        return None

    def _done(self) -> int:
        return self._outstanding.get(self.low(), self._read) - self._checkpointed

    def _is_worth_it(self, done: int) -> bool:
        return done >= max(self._settings.min_checkpoint_count, 1)

    def _deadline(self) -> float:
        return self._time + self._settings.checkpoint_after / 1000
