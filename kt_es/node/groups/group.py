"""Persistent subscriptions as a state machine: what is delivered to whom, redelivered, parked, done.

Pure: time is passed in (seconds of any steady clock), events are known by their order and id only, and
effects are left for the caller to carry out: consumers that have something to send (``take_awake``),
messages to park (``take_parking``), parked messages that are settled (``take_unparked``), a checkpoint
to write (``checkpoint_due``).

A message is *fresh* (read, not yet delivered), *in flight* (delivered, not yet acknowledged),
*retrying* (to be delivered again, before fresh ones, in order), or *parking* (until the caller says
that it is parked). All of these hold the checkpoint back: it is the order of the lowest of them.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import deque
from collections.abc import Iterable, Sequence
from math import ceil, inf

from kt_es.node.groups.progress import LAZY, Progress
from kt_es.node.groups.values import Action, Consumer, Delivery, Message, Rate, Settings, Strategy

MAX_RETRY_SHOWN = 2**31 - 1
HELD_BYTES = 4 << 20  # payload of messages read ahead and not yet given to a consumer, per group
OUTBOX_BYTES = 1 << 20  # payload of messages given to a consumer and not yet sent
TICK = 1.0  # seconds
BUCKETS = 1024  # by which pinned messages are shared out


class Group:
    """The state of one group, which goes on at ``cursor``: the order of the next message to read."""

    def __init__(self, settings: Settings, cursor: int, now: float) -> None:
        self.settings = settings
        self.progress = Progress(settings, cursor, now)
        self.consumers: deque[Consumer] = deque()
        self.rate = Rate(now)
        self._began = now
        self._fresh: deque[Message] = deque()
        self._retrying: list[tuple[int, int, Message]] = []
        self._retrying_ids: dict[str, Message] = {}
        self._in_flight: dict[str, Delivery] = {}
        self._deadlines: deque[Delivery] = deque()
        self._held = 0
        self._sequence = 0
        self._admitted = 0
        self._pins: dict[int, Consumer] = {}
        self._awake: set[Consumer] = set()
        self._parking: list[Message] = []
        self._unparked: list[int] = []

    # --- consumers ---------------------------------------------------------------------------

    def connect(self, consumer: Consumer, now: float = 0.0) -> bool:
        """Admit ``consumer`` if there is a place."""
        limit = self.settings.max_subscriber_count
        if limit and len(self.consumers) >= limit:
            return False
        self._admitted += 1
        consumer.number = self._admitted
        consumer.rate = Rate(now)
        self.consumers.append(consumer)
        self._pins.clear()
        return True

    def disconnect(self, consumer: Consumer) -> None:
        """The consumer is gone: what it had in flight is delivered again."""
        if consumer in self.consumers:
            self.consumers.remove(consumer)
        self._pins.clear()
        lost = [delivery for delivery in self._in_flight.values() if delivery.consumer is consumer]
        for delivery in sorted(lost, key=lambda delivery: delivery.message.order):
            self._take_back(delivery)
            self._again(delivery.message)
        consumer.outbox.clear()
        self._awake.discard(consumer)

    def drop_all(self) -> None:
        """The group ends for its consumers."""
        for consumer in self.consumers:
            consumer.dropped = True
            self._awake.add(consumer)

    # --- reading -----------------------------------------------------------------------------

    def room(self) -> int:
        """How many messages may be read now; 0 while enough are there or nobody is connected."""
        size = max(self.settings.history_buffer_size, 1)
        if not self.consumers or self.is_full or len(self._fresh) * 2 > size:
            return 0
        return size - len(self._fresh)

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be read because of what is read and not yet given to anybody."""
        return self._held >= HELD_BYTES

    def push(self, messages: Sequence[Message], cursor: int, passed_over: int = 0) -> None:
        """Messages were read: see ``Progress.read``."""
        self.progress.read(messages, cursor, passed_over)
        self._fresh.extend(messages)
        self._held += sum(len(message.payload or b"") for message in messages)
        if len(self._deadlines) > 2 * len(self._in_flight) + LAZY:
            self._deadlines = deque(filter(self.is_current, self._deadlines))

    def replay(self, messages: Iterable[Message]) -> None:
        """Parked messages are to be delivered again, before all others."""
        for message in messages:
            self._queue_again(message)

    # --- delivering --------------------------------------------------------------------------

    def dispatch(self, now: float) -> None:
        """Give waiting messages to consumers that have room."""
        if self.settings.strategy.is_pinned:
            self._dispatch_pinned(now)
            return
        while (message := self._next()) is not None:
            # A second event with the id of one in flight waits, so that an acknowledgement is clear.
            if message.id in self._in_flight or (consumer := self._pick()) is None:
                return
            self._remove_next()
            self._give(message, consumer, now)

    def _dispatch_pinned(self, now: float) -> None:
        """Who has no room keeps nobody else waiting: what is pinned to it is passed over, in order."""
        blocked = {consumer for consumer in self.consumers if not consumer.has_room}
        if len(blocked) == len(self.consumers):
            return

        def given(message: Message) -> bool:
            consumer = self._pinned(message.pin % BUCKETS)
            if consumer in blocked or message.id in self._in_flight:
                blocked.add(consumer)
                # It may wait long: it is read again when its turn comes.
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
            if given(entry[2]):
                self._retrying_ids.pop(entry[2].id, None)
            else:
                waiting.append(entry)
        self._retrying = waiting  # sorted, and so a heap
        passed_over: list[Message] = []
        while self._fresh and len(blocked) < len(self.consumers):
            message = self._fresh.popleft()
            self._held -= len(message.payload or b"")
            if not given(message):
                passed_over.append(message)
        self._fresh.extendleft(reversed(passed_over))

    def _give(self, message: Message, consumer: Consumer, now: float) -> None:
        delivery = Delivery(message, consumer, self._expiry(now))
        self._in_flight[message.id] = delivery
        if delivery.deadline < inf:
            self._deadlines.append(delivery)
        consumer.in_flight += 1
        consumer.rate.total += 1
        self.rate.total += 1
        consumer.outbox.append(delivery)
        self._awake.add(consumer)
        size = len(message.payload or b"")
        if consumer.held + size > OUTBOX_BYTES and consumer.held:
            # It takes nothing at the moment: this one is read again when its turn comes.
            message.payload = None
        else:
            consumer.held += size

    def _expiry(self, now: float) -> float:
        """When a message that is given at ``now`` is taken back: servers look once in a ``TICK``."""
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

    def _pick(self) -> Consumer | None:
        consumers = self.consumers
        for _ in range(len(consumers)):
            consumer = consumers[0]
            if self.settings.strategy is Strategy.ROUND_ROBIN or not consumer.has_room:
                consumers.rotate(-1)
            if consumer.has_room:
                return consumer
        return None

    def _pinned(self, bucket: int) -> Consumer:
        """The consumer of a bucket: that of the highest hash, so that few move when one comes or goes."""
        consumer = self._pins.get(bucket)
        if consumer is None:
            consumer = max(self.consumers, key=lambda one: _weight(bucket, one.number))
            self._pins[bucket] = consumer
        return consumer

    def is_current(self, delivery: Delivery) -> bool:
        """Whether ``delivery`` is still to be made, or was taken back while it waited in an outbox."""
        return self._in_flight.get(delivery.message.id) is delivery

    def sent(self, delivery: Delivery) -> None:
        """The payload has gone out; it is no longer held."""
        message = delivery.message
        delivery.consumer.held -= len(message.payload or b"")
        message.payload = None

    # --- answers of consumers ------------------------------------------------------------------

    def ack(self, consumer: Consumer, ids: Iterable[str]) -> None:
        """``consumer`` has processed these. Unknown ids, and those of others, are ignored."""
        for event_id in ids:
            delivery = self._in_flight.get(event_id)
            if delivery is not None and delivery.consumer is consumer:
                self._take_back(delivery)
                self._settle(delivery.message)
            elif delivery is None and event_id in self._retrying_ids:
                # It came too late for its timeout, but before the message was delivered again.
                self._settle(self._retrying_ids.pop(event_id))

    def nack(self, consumer: Consumer, ids: Iterable[str], action: Action) -> None:
        """``consumer`` could not process these. After a ``STOP`` a message is done, as on servers."""
        for event_id in ids:
            delivery = self._in_flight.get(event_id)
            if delivery is None or delivery.consumer is not consumer:
                continue
            self._take_back(delivery)
            if action in {Action.SKIP, Action.STOP}:
                self._settle(delivery.message)
            elif action is Action.PARK:
                self._parking.append(delivery.message)
            else:
                self._again(delivery.message)

    def gone(self, delivery: Delivery) -> None:
        """The event cannot be read any more (truncated): there is nothing to deliver."""
        self._take_back(delivery)
        self._settle(delivery.message)

    def parked(self, message: Message) -> None:
        """``message`` from ``take_parking`` is parked, on disk."""
        self._settle(message)

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
        # Replayed ones have no place in the order of the others and go first.
        order = -1 if message.parked >= 0 else message.order
        heapq.heappush(self._retrying, (order, self._sequence, message))
        self._retrying_ids[message.id] = message

    def _settle(self, message: Message) -> None:
        message.settled = True
        if message.parked >= 0:
            self._unparked.append(message.parked)
        self.progress.settle(message)

    # --- what the caller has to do -------------------------------------------------------------

    def take_awake(self) -> list[Consumer]:
        """Consumers that have something to send or are dropped."""
        awake = list(self._awake)
        self._awake.clear()
        return awake

    def take_parking(self) -> list[Message]:
        """Messages to park; each is to be confirmed with ``parked``."""
        parking, self._parking = self._parking, []
        return parking

    def take_unparked(self) -> list[int]:
        """Revisions of parked messages that were replayed and are settled."""
        unparked, self._unparked = self._unparked, []
        return unparked

    def next_deadline(self, now: float) -> float | None:
        """When ``expire`` or ``Progress.due`` should be called next, if nothing happens before."""
        while self._deadlines and not self.is_current(self._deadlines[0]):
            self._deadlines.popleft()
        expiry = self._deadlines[0].deadline if self._deadlines else None
        times = (expiry, self.progress.deadline(now))
        return min((time for time in times if time is not None), default=None)

    # --- figures -------------------------------------------------------------------------------

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


def _weight(bucket: int, number: int) -> bytes:
    return hashlib.blake2b(b"%d/%d" % (bucket, number), digest_size=8).digest()
