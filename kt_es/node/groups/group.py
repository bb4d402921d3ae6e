"""A persistent subscription as a state machine: it decides which consumer gets which message, and when again.

The state machine is pure. Time is passed in (seconds of any steady clock), and events are known by their
order and id only. The caller carries out the effects: it sends to the consumers of ``take_awake``, parks the
messages of ``take_parking``, removes the parked messages of ``take_unparked``, and writes the checkpoint of
``GroupProgress.due``.

A message is *fresh* (read, not yet delivered), *in flight* (delivered, not yet acknowledged),
*retrying* (to be delivered again, before fresh ones, in order), or *parking* (until the caller says
that it is parked). All of these hold the checkpoint back: it is the order of the lowest of them.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Sequence
from math import ceil, inf

from kt_es.node.groups.messages import LAZY, Consumer, Consumers, Delivery, GroupProgress, Message, NackAction
from kt_es.node.groups.settings import GroupSettings, Strategy

MAX_RETRY_SHOWN = 2**31 - 1
HELD_BYTES = 4 << 20  # payload of messages read ahead and not yet given to a consumer, per group
OUTBOX_BYTES = 1 << 20  # payload of messages given to a consumer and not yet sent
TICK = 1.0  # seconds


class Group:
    """The state of one group. ``cursor`` is the order of the next message to read."""

    def __init__(self, settings: GroupSettings, cursor: int, now: float) -> None:
        self.settings = settings
        self.progress = GroupProgress(settings, cursor, now)
        self.consumers = Consumers(now)
        self._began = now
        self._fresh: deque[Message] = deque()
        self._retrying: list[tuple[int, int, Message]] = []
        self._retrying_ids: dict[str, Message] = {}
        self._in_flight: dict[str, Delivery] = {}
        self._deadlines: deque[Delivery] = deque()
        self._held = 0
        self._sequence = 0
        self._awake: set[Consumer] = set()
        self._parking: list[Message] = []
        self._unparked: list[int] = []

    def connect(self, consumer: Consumer, now: float = 0.0) -> bool:
        """Admit ``consumer`` unless the group is full; return whether it was admitted."""
        limit = self.settings.max_subscriber_count
        if limit and len(self.consumers) >= limit:
            return False
        self.consumers.add(consumer, now)
        return True

    def disconnect(self, consumer: Consumer) -> None:
        """Remove ``consumer``: its messages in flight are delivered again."""
        self.consumers.remove(consumer)
        lost = [delivery for delivery in self._in_flight.values() if delivery.consumer is consumer]
        for delivery in sorted(lost, key=lambda delivery: delivery.message.order):
            self._take_back(delivery)
            self._again(delivery.message)
        consumer.outbox.clear()
        self._awake.discard(consumer)

    def drop_all(self) -> None:
        for consumer in self.consumers:
            consumer.dropped = True
            self._awake.add(consumer)

    def room(self) -> int:
        """Return how many messages may be read now; 0 while enough are waiting or nobody is connected."""
        size = max(self.settings.history_buffer_size, 1)
        if not self.consumers or self._held >= HELD_BYTES or len(self._fresh) * 2 > size:
            return 0
        return size - len(self._fresh)

    def push(self, messages: Sequence[Message], cursor: int, passed_over: int = 0) -> None:
        """Queue messages that were read: see ``GroupProgress.read``."""
        self.progress.read(messages, cursor, passed_over)
        self._fresh.extend(messages)
        self._held += sum(len(message.payload or b"") for message in messages)
        if len(self._deadlines) > 2 * len(self._in_flight) + LAZY:
            self._deadlines = deque(filter(self.is_current, self._deadlines))

    def replay(self, messages: Iterable[Message]) -> None:
        """Queue parked messages to be delivered again, before all others."""
        for message in messages:
            self._queue_again(message)

    # --- delivering --------------------------------------------------------------------------

    def dispatch(self, now: float) -> None:
        """Deliver waiting messages to consumers that have room."""
        if self.settings.strategy.is_pinned:
            self._dispatch_pinned(now)
            return
        in_turn = self.settings.strategy is Strategy.ROUND_ROBIN
        while (message := self._next()) is not None:
            # An event with the id of one in flight waits, so that an acknowledgement is unambiguous.
            consumer = None if message.id in self._in_flight else self.consumers.with_room(in_turn=in_turn)
            if consumer is None:
                return
            self._remove_next()
            self._give(message, consumer, now)

    def _dispatch_pinned(self, now: float) -> None:
        """Pass over messages whose consumer has no room, so that others need not wait; keep their order."""
        blocked = {consumer for consumer in self.consumers if not consumer.has_room}
        if len(blocked) == len(self.consumers):
            return

        def give_to_pinned(message: Message) -> bool:
            consumer = self.consumers.pinned(message.pin)
            if consumer in blocked or message.id in self._in_flight:
                blocked.add(consumer)
                # The message may wait long: its payload is read again when its turn comes.
                message.payload = None
                return False
            self._give(message, consumer, now)
            if not consumer.has_room:
                blocked.add(consumer)
            return True

        waiting = []
        for entry in sorted(self._retrying):
            if entry[2].settled:
                continue
            if give_to_pinned(entry[2]):
                self._retrying_ids.pop(entry[2].id, None)
            else:
                waiting.append(entry)
        self._retrying = waiting  # sorted, and so a heap
        passed_over: list[Message] = []
        while self._fresh and len(blocked) < len(self.consumers):
            message = self._fresh.popleft()
            self._held -= len(message.payload or b"")
            if not give_to_pinned(message):
                passed_over.append(message)
        self._fresh.extendleft(reversed(passed_over))

    def _give(self, message: Message, consumer: Consumer, now: float) -> None:
        delivery = Delivery(message, consumer, self._expiry(now))
        self._in_flight[message.id] = delivery
        if delivery.deadline < inf:
            self._deadlines.append(delivery)
        consumer.in_flight += 1
        consumer.rate.total += 1
        self.consumers.rate.total += 1
        consumer.outbox.append(delivery)
        self._awake.add(consumer)
        size = len(message.payload or b"")
        if consumer.held + size > OUTBOX_BYTES and consumer.held:
            # The consumer is slow: the payload is read again when its turn comes.
            message.payload = None
        else:
            consumer.held += size

    def _expiry(self, now: float) -> float:
        """Return the time to take back a message of ``now``. EventStoreDB looks once in a ``TICK``."""
        timeout = self.settings.message_timeout / 1000
        if timeout <= 0:
            return inf
        return self._began + ceil((now + timeout - self._began) / TICK) * TICK

    def _next(self) -> Message | None:
        while self._retrying and self._retrying[0][2].settled:
            heapq.heappop(self._retrying)
        if self._retrying:
            return self._retrying[0][2]
        return self._fresh[0] if self._fresh else None

    def _remove_next(self) -> None:
        if self._retrying:
            _, _, message = heapq.heappop(self._retrying)
            self._retrying_ids.pop(message.id, None)
        else:
            self._held -= len(self._fresh.popleft().payload or b"")

    def is_current(self, delivery: Delivery) -> bool:
        """Return whether ``delivery`` was neither acknowledged nor taken back."""
        return self._in_flight.get(delivery.message.id) is delivery

    def sent(self, delivery: Delivery) -> None:
        """Release the payload of ``delivery``, which was sent."""
        message = delivery.message
        delivery.consumer.held -= len(message.payload or b"")
        message.payload = None

    # --- answers of consumers ------------------------------------------------------------------

    def ack(self, consumer: Consumer, ids: Iterable[str]) -> None:
        """Settle messages that ``consumer`` has processed. Ids unknown or of other consumers are ignored."""
        for event_id in ids:
            delivery = self._in_flight.get(event_id)
            if delivery is not None and delivery.consumer is consumer:
                self._take_back(delivery)
                self.settle(delivery.message)
            elif delivery is None and event_id in self._retrying_ids:
                # Too late for the timeout, but before the message was delivered again.
                self.settle(self._retrying_ids.pop(event_id))

    def nack(self, consumer: Consumer, ids: Iterable[str], action: NackAction) -> None:
        """Do ``action`` with messages that ``consumer`` could not process. ``STOP`` settles them."""
        for event_id in ids:
            delivery = self._in_flight.get(event_id)
            if delivery is None or delivery.consumer is not consumer:
                continue
            self._take_back(delivery)
            if action in {NackAction.SKIP, NackAction.STOP}:
                self.settle(delivery.message)
            elif action is NackAction.PARK:
                self._parking.append(delivery.message)
            else:
                self._again(delivery.message)

    def gone(self, delivery: Delivery) -> None:
        """Settle a message whose event was truncated, so that there is nothing to deliver."""
        self._take_back(delivery)
        self.settle(delivery.message)

    def expire(self, now: float) -> None:
        """Take back what was not acknowledged in time."""
        while self._deadlines:
            delivery = self._deadlines[0]
            if self.is_current(delivery):
                if delivery.deadline > now:
                    return
                self._take_back(delivery)
                self._again(delivery.message)
            self._deadlines.popleft()

    def _take_back(self, delivery: Delivery) -> None:
        del self._in_flight[delivery.message.id]
        delivery.consumer.in_flight -= 1
        self.sent(delivery)

    def _again(self, message: Message) -> None:
        if message.retries >= self.settings.max_retry_count:
            self._parking.append(message)
            return
        message.retries = min(message.retries + 1, MAX_RETRY_SHOWN)
        self._queue_again(message)

    def _queue_again(self, message: Message) -> None:
        self._sequence += 1
        # Replayed messages have no order among the others and go first.
        order = -1 if message.parked >= 0 else message.order
        heapq.heappush(self._retrying, (order, self._sequence, message))
        self._retrying_ids[message.id] = message

    def settle(self, message: Message) -> None:
        """Note that ``message`` is done: acknowledged, skipped, or parked on disk."""
        message.settled = True
        if message.parked >= 0:
            self._unparked.append(message.parked)
        self.progress.settle(message)

    def take_awake(self) -> list[Consumer]:
        """Return the consumers that have something to send or are dropped."""
        awake = list(self._awake)
        self._awake.clear()
        return awake

    def take_parking(self) -> list[Message]:
        """Return the messages to park; the caller confirms each with ``settle``."""
        parking, self._parking = self._parking, []
        return parking

    def take_unparked(self) -> list[int]:
        """Return the revisions of parked messages that were replayed and are settled."""
        unparked, self._unparked = self._unparked, []
        return unparked

    def next_deadline(self, now: float) -> float | None:
        """Return the next time to call ``expire`` or ``GroupProgress.due`` if nothing happens before."""
        while self._deadlines and not self.is_current(self._deadlines[0]):
            self._deadlines.popleft()
        expiry = self._deadlines[0].deadline if self._deadlines else None
        times = (expiry, self.progress.deadline(now))
        return min((time for time in times if time is not None), default=None)

    @property
    def buffered(self) -> int:
        """Messages read and not yet delivered."""
        return len(self._fresh)

    @property
    def retrying(self) -> int:
        """Messages that wait to be delivered again."""
        return len(self._retrying_ids)

    @property
    def in_flight(self) -> int:
        """Messages delivered and not yet acknowledged."""
        return len(self._in_flight)
