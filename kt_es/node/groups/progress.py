"""How far a group is: what it has read, what of that is not settled yet, and the checkpoint to write."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from kt_es.node.groups.values import Message, Settings

LAZY = 4096  # settled entries that may wait in a queue before they are swept out


class Progress:
    """The orders of messages between a group's checkpoint and ``cursor``, the next one to read."""

    def __init__(self, settings: Settings, cursor: int, now: float) -> None:
        self.cursor = cursor
        self.checkpoint = cursor
        self._settings = settings
        self._outstanding: set[int] = set()
        self._ascending: deque[int] = deque()  # those outstanding, and some that are settled
        self._settled_since = 0
        self._passed_over = 0
        self._time = now

    def read(self, messages: Iterable[Message], cursor: int, passed_over: int) -> None:
        """Messages were read, in order; reading goes on at ``cursor``.

        ``passed_over`` is how many more were looked at and did not pass the filter.
        """
        self._passed_over += passed_over
        for message in messages:
            self._outstanding.add(message.order)
            self._ascending.append(message.order)
        self.cursor = cursor
        # Behind one message that stays unsettled for long, those that are settled would pile up.
        if len(self._ascending) > 2 * len(self._outstanding) + LAZY:
            self._ascending = deque(sorted(self._outstanding))

    def settle(self, message: Message) -> None:
        """Nothing more is to be done for ``message``."""
        if message.parked < 0:
            self._outstanding.discard(message.order)
        self._settled_since += 1

    def low(self) -> int:
        """The order of the lowest message that is not settled: all below are."""
        orders = self._ascending
        while orders and orders[0] not in self._outstanding:
            orders.popleft()
        return orders[0] if orders else self.cursor

    def due(self, now: float) -> int | None:
        """The checkpoint to write now, if one is due: after ``max_checkpoint_count`` settled messages;
        after ``checkpoint_after`` if ``min_checkpoint_count`` are settled or the filter has passed over
        as many as it says (``Filter.checkpoint_every``)."""
        enough = self._settled_since >= max(self._settings.max_checkpoint_count, 1)
        if not enough and not (self._pending() and now >= self._deadline()):
            return None
        low = self.low()
        return low if low > self.checkpoint else None

    def written(self, order: int, now: float) -> None:
        """The checkpoint ``order`` is being written."""
        self.checkpoint = order
        self._time = now
        self._settled_since = 0
        self._passed_over = 0

    def deadline(self, now: float) -> float | None:
        """When ``due`` should be asked next, if nothing happens before."""
        if self._pending() and self.low() > self.checkpoint:
            return max(self._deadline(), now)
        return None

    def _pending(self) -> bool:
        filter_ = self._settings.filter
        if filter_ is not None and self._passed_over >= filter_.checkpoint_every:
            return True
        return self._settled_since >= max(self._settings.min_checkpoint_count, 1)

    def _deadline(self) -> float:
        return self._time + self._settings.checkpoint_after / 1000
