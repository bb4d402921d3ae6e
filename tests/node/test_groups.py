"""The state machine of persistent subscriptions, with a clock of the test's own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from kt_es.node.groups.group import HELD_BYTES, OUTBOX_BYTES, Group
from kt_es.node.groups.messages import Consumer, Delivery, Message, NackAction
from kt_es.node.groups.settings import GroupSettings, Strategy

ALWAYS = 2**31 - 1


@dataclass
class Bench:
    """A group with ``count`` messages to read; what consumers were given is taken from their outboxes."""

    settings: GroupSettings
    count: int = 10
    now: float = 100.0
    group: Group = field(init=False)

    def __post_init__(self) -> None:
        self.group = Group(self.settings, 0, self.now)

    def consumer(self, capacity: int = 100) -> Consumer:
        consumer = Consumer(capacity, lambda: None)
        assert self.group.connect(consumer)
        self.pump()
        return consumer

    def pump(self, now: float | None = None) -> None:
        self.now = self.now if now is None else now
        self.group.expire(self.now)
        room = self.group.room()
        start = self.group.progress.cursor
        stop = min(self.count, start + room)
        self.group.push([Message(order, f"id-{order}") for order in range(start, stop)], stop)
        self.group.dispatch(self.now)

    def given(self, consumer: Consumer) -> list[int]:
        """Orders of what ``consumer`` was sent since the last call, as its connection would send them."""
        sent = []
        while consumer.outbox:
            delivery: Delivery = consumer.outbox.popleft()
            if self.group.is_current(delivery):
                sent.append(delivery.message.order)
        return sent

    def ack(self, consumer: Consumer, orders: Iterable[int]) -> None:
        self.group.ack(consumer, [f"id-{order}" for order in orders])
        self.pump()

    def nack(self, consumer: Consumer, orders: Iterable[int], action: NackAction) -> None:
        self.group.nack(consumer, [f"id-{order}" for order in orders], action)
        self.pump()


def settings(**changed: object) -> GroupSettings:
    return GroupSettings(max_retry_count=ALWAYS, **changed)  # type: ignore[arg-type]


def test_messages_come_in_order_as_far_as_there_is_room() -> None:
    bench = Bench(settings())
    consumer = bench.consumer(capacity=3)
    assert bench.given(consumer) == [0, 1, 2]
    bench.ack(consumer, [1])
    assert bench.given(consumer) == [3]
    assert bench.group.progress.low() == 0
    bench.ack(consumer, [0, 2])
    assert bench.group.progress.low() == 3


def test_a_lost_consumers_messages_come_first_and_in_order() -> None:
    bench = Bench(settings(), count=20)
    lost, other = bench.consumer(capacity=6), bench.consumer(capacity=2)
    assert bench.given(lost) == [0, 1, 2, 3, 4, 5]
    assert bench.given(other) == [6, 7]
    bench.group.ack(lost, ["id-2"])
    bench.group.disconnect(lost)
    bench.ack(other, [6, 7])
    assert bench.given(other) == [0, 1]
    bench.ack(other, [0, 1])
    assert bench.given(other) == [3, 4]
    bench.ack(other, [3, 4])
    assert bench.given(other) == [5, 8]


def test_what_waits_unsent_is_taken_back_with_its_consumer() -> None:
    bench = Bench(settings())
    lost = bench.consumer()
    bench.group.disconnect(lost)
    assert bench.given(lost) == []
    again = bench.consumer()
    assert bench.given(again) == list(range(10))


def test_timeouts_redeliver_and_late_acknowledgements_count() -> None:
    bench = Bench(settings(message_timeout=1000), count=3)
    consumer = bench.consumer()
    assert bench.given(consumer) == [0, 1, 2]
    assert bench.group.next_deadline(bench.now) == 101.0
    bench.ack(consumer, [1])
    bench.group.expire(101.0)
    bench.group.ack(consumer, ["id-0"])
    bench.pump(101.0)
    assert bench.given(consumer) == [2]
    assert bench.group.progress.low() == 2


def test_what_has_expired_is_looked_for_once_a_second() -> None:
    bench = Bench(settings(message_timeout=100), count=3)
    consumer = bench.consumer(capacity=1)
    assert bench.given(consumer) == [0]
    bench.pump(100.9)
    assert bench.given(consumer) == []
    assert bench.group.next_deadline(bench.now) == 101.0
    bench.pump(101.0)
    assert bench.given(consumer) == [0]
    bench.ack(consumer, [0])
    bench.pump(101.95)
    assert bench.given(consumer) == [1]
    bench.pump(102.0)
    # It was given at 101.0, so this is the second look.
    assert bench.given(consumer) == [1]


def test_no_timeout_means_never() -> None:
    bench = Bench(settings(message_timeout=0), count=2)
    consumer = bench.consumer()
    bench.given(consumer)
    bench.pump(10_000_000.0)
    assert bench.given(consumer) == []
    assert bench.group.next_deadline(bench.now) is None


def test_retries_end_in_parking_which_holds_the_checkpoint_back() -> None:
    bench = Bench(GroupSettings(max_retry_count=1), count=2)
    consumer = bench.consumer()
    bench.given(consumer)
    bench.ack(consumer, [1])
    bench.nack(consumer, [0], NackAction.RETRY)
    assert bench.given(consumer) == [0]
    bench.nack(consumer, [0], NackAction.RETRY)
    (parking,) = bench.group.take_parking()
    assert (parking.order, parking.retries) == (0, 1)
    assert bench.group.progress.low() == 0
    bench.group.settle(parking)
    assert bench.group.progress.low() == 2
    assert bench.group.take_parking() == []


def test_actions_of_a_negative_acknowledgement() -> None:
    bench = Bench(settings(), count=4)
    consumer = bench.consumer()
    bench.given(consumer)
    bench.nack(consumer, [0], NackAction.SKIP)
    bench.nack(consumer, [1], NackAction.PARK)
    bench.nack(consumer, [2], NackAction.UNKNOWN)
    assert bench.given(consumer) == [2]
    assert [message.order for message in bench.group.take_parking()] == [1]
    bench.nack(consumer, [3], NackAction.STOP)
    assert not consumer.dropped
    assert bench.given(consumer) == []
    assert bench.group.progress.low() == 1
    bench.ack(consumer, [2])
    assert (bench.group.in_flight, bench.group.retrying) == (0, 0)


def test_replayed_messages_come_first_and_do_not_move_the_checkpoint() -> None:
    bench = Bench(settings(), count=5)
    consumer = bench.consumer(capacity=2)
    bench.given(consumer)
    bench.group.replay([Message(7, "parked-7", parked=7), Message(8, "parked-8", parked=8)])
    bench.ack(consumer, [0, 1])
    assert bench.given(consumer) == [7, 8]
    bench.group.ack(consumer, ["parked-8", "parked-7"])
    assert sorted(bench.group.take_unparked()) == [7, 8]
    assert bench.group.progress.low() == 2


def test_events_with_the_same_id_are_in_flight_one_after_the_other() -> None:
    group = Group(settings(), 0, 0.0)
    consumer = Consumer(10, lambda: None)
    group.connect(consumer)
    group.push([Message(0, "same"), Message(1, "same"), Message(2, "other")], 3)
    group.dispatch(0.0)
    assert [delivery.message.order for delivery in consumer.outbox] == [0]
    group.ack(consumer, ["same"])
    group.dispatch(0.0)
    assert [delivery.message.order for delivery in consumer.outbox] == [0, 1, 2]


def test_places_are_limited() -> None:
    group = Group(settings(max_subscriber_count=1), 0, 0.0)
    first, second = Consumer(1, lambda: None), Consumer(1, lambda: None)
    assert group.connect(first)
    assert not group.connect(second)
    group.disconnect(first)
    assert group.connect(second)


def test_strategies() -> None:
    shared = Bench(settings(strategy=Strategy.ROUND_ROBIN), count=0)
    single = Bench(settings(strategy=Strategy.DISPATCH_TO_SINGLE), count=0)
    for bench, expected in ((shared, [[0, 2, 4], [1, 3, 5]]), (single, [[0, 1, 2, 3], [4, 5]])):
        consumers = [bench.consumer(capacity=4), bench.consumer(capacity=4)]
        bench.count = 6
        bench.pump()
        assert [bench.given(consumer) for consumer in consumers] == expected


def pinned(count: int) -> tuple[Group, list[Consumer]]:
    """``count`` messages, each with a pin of its own, and three consumers who take all of them."""
    group = Group(settings(strategy=Strategy.PINNED), 0, 0.0)
    consumers = [Consumer(count, lambda: None) for _ in range(3)]
    for consumer in consumers:
        group.connect(consumer)
    group.push([Message(order, f"id-{order}", pin=order) for order in range(count)], count)
    group.dispatch(0.0)
    return group, consumers


def orders(consumer: Consumer) -> set[int]:
    return {delivery.message.order for delivery in consumer.outbox}


def test_pins_are_shared_out_and_few_move_when_a_consumer_goes() -> None:
    group, (first, second, third) = pinned(300)
    before = [orders(consumer) for consumer in (first, second, third)]
    assert sum(map(len, before)) == 300
    assert min(map(len, before)) > 50
    group.disconnect(second)
    group.dispatch(0.0)
    assert orders(first) > before[0]
    assert orders(third) > before[2]
    assert orders(first) | orders(third) == set(range(300))


def test_a_full_pinned_consumer_keeps_nobody_else_waiting() -> None:
    group = Group(settings(strategy=Strategy.PINNED, message_timeout=1000), 0, 0.0)
    stuck, free = Consumer(1, lambda: None), Consumer(2, lambda: None)
    for consumer in (stuck, free):
        group.connect(consumer)
    group.push([Message(order, f"id-{order}", b"x", pin=order % 20) for order in range(40)], 40)
    group.dispatch(0.0)
    taken: list[int] = []
    while free.outbox:
        given = free.outbox.popleft()
        taken.append(given.message.order)
        group.ack(free, [given.message.id])
        group.dispatch(0.0)
    assert len(taken) > 10
    assert taken == sorted(taken)
    waiting = set(range(40)) - set(taken)
    assert orders(stuck) == {min(waiting)}
    assert {order % 20 for order in waiting}.isdisjoint(order % 20 for order in taken)
    # What it did not acknowledge comes again, and holds the others up no more than the first time.
    group.expire(2.0)
    group.push([Message(order, f"id-{order}", pin=order % 20) for order in range(40, 60)], 60)
    group.dispatch(2.0)
    assert {delivery.message.order for delivery in stuck.outbox if group.is_current(delivery)} == {
        min(waiting)
    }
    assert len(free.outbox) == 2
    # In order, once it takes them.
    came: list[int] = []
    while stuck.outbox:
        given = stuck.outbox.popleft()
        if group.is_current(given):
            came.append(given.message.order)
            group.ack(stuck, [given.message.id])
            group.dispatch(2.0)
    assert came == sorted(came)
    assert set(came) >= waiting


def test_whoever_does_not_take_its_messages_holds_little_of_them() -> None:
    """What others are given is read while a consumer's outbox is full."""
    group = Group(settings(strategy=Strategy.ROUND_ROBIN), 0, 0.0)
    stuck, free = Consumer(10_000, lambda: None), Consumer(10_000, lambda: None)
    for consumer in (stuck, free):
        group.connect(consumer)
    size = HELD_BYTES // 16
    for first in range(0, 200, 10):
        assert group.room() > 0
        messages = [Message(order, f"id-{order}", bytes(size)) for order in range(first, first + 10)]
        group.push(messages, first + 10)
        group.dispatch(0.0)
        while free.outbox:
            group.sent(free.outbox.popleft())
    assert len(stuck.outbox) == 100
    assert sum(len(delivery.message.payload or b"") for delivery in stuck.outbox) <= OUTBOX_BYTES
    assert not free.held
    group.disconnect(stuck)
    assert not stuck.held
    assert group.room() > 0


def test_a_dropped_consumer_is_given_nothing_more() -> None:
    bench = Bench(settings(), count=4)
    stopped = bench.consumer(capacity=2)
    other = bench.consumer(capacity=4)
    stopped.dropped = True
    bench.nack(stopped, [0, 1], NackAction.RETRY)
    assert bench.given(stopped) == []
    assert sorted(bench.given(other)) == [0, 1, 2, 3]


def test_pinned_messages_wait_for_their_consumer() -> None:
    group = Group(settings(strategy=Strategy.PINNED_BY_CORRELATION), 0, 0.0)
    full, free = Consumer(1, lambda: None), Consumer(99, lambda: None)
    for consumer in (full, free):
        group.connect(consumer)
    group.push([Message(order, f"id-{order}", pin=order) for order in range(20)], 20)
    group.dispatch(0.0)
    (held,) = orders(full)
    waiting = group.buffered
    assert waiting > 0
    group.ack(full, [f"id-{held}"])
    group.dispatch(0.0)
    assert len(orders(full)) == 2
    assert group.buffered < waiting


def test_nothing_is_read_for_nobody_and_little_ahead() -> None:
    group = Group(settings(history_buffer_size=10), 0, 0.0)
    assert group.room() == 0
    group.connect(Consumer(1, lambda: None))
    assert group.room() == 10
    group.push([Message(order, str(order)) for order in range(10)], 10)
    group.dispatch(0.0)
    assert group.room() == 0


STEPS = st.lists(
    st.tuples(st.sampled_from(["ack", "retry", "park", "skip", "lose", "time"]), st.integers(0, 30)),
    max_size=60,
)


@given(STEPS)
def test_whatever_happens_everything_is_settled_once_and_nothing_is_skipped(
    steps: list[tuple[str, int]],
) -> None:
    bench = Bench(settings(message_timeout=5000, max_subscriber_count=0), count=30)
    consumer = bench.consumer(capacity=4)
    settled: set[int] = set()
    for what, number in steps:
        bench.given(consumer)
        flying = sorted(bench.group._in_flight.values(), key=lambda d: d.message.order)
        order = flying[number % len(flying)].message.order if flying else -1
        if what == "lose":
            bench.group.disconnect(consumer)
            consumer = bench.consumer(capacity=4)
        elif what == "time":
            bench.pump(bench.now + number)
        elif flying and what == "ack":
            settled.add(order)
            bench.ack(consumer, [order])
        elif flying:
            if what != "retry":
                settled.add(order)
            bench.nack(consumer, [order], NackAction[what.upper()])
            for message in bench.group.take_parking():
                bench.group.settle(message)
            bench.pump()
        assert bench.group.progress.low() == next(order for order in range(31) if order not in settled)
    while rest := [order for order in range(30) if order not in settled]:
        bench.given(consumer)
        bench.ack(consumer, rest[:1])
        settled.add(rest[0])
    assert bench.group.progress.low() == 30
    assert bench.group.in_flight == bench.group.retrying == bench.group.buffered == 0
