"""When a group's checkpoint is due, and what it costs to know."""

from __future__ import annotations

from kt_es.node.groups.group import Group
from kt_es.node.groups.messages import LAZY, Consumer
from kt_es.node.groups.settings import Filter
from tests.node.test_groups import Bench, settings


def test_what_a_filter_holds_back_moves_the_checkpoint_in_time() -> None:
    filter_ = Filter(True, "", ("x",), checkpoint_every=1)
    group = Group(settings(filter=filter_, min_checkpoint_count=3, checkpoint_after=1000), 5, 100.0)
    group.connect(Consumer(1, lambda: None))
    group.push([], 7, passed_over=2)
    assert group.next_deadline(100.5) is None
    group.push([], 8, passed_over=1)
    assert group.next_deadline(100.5) == 101.0
    assert group.progress.due(100.5) is None
    assert group.progress.due(101.0) == 8
    group.progress.written(8, 101.0)
    assert group.next_deadline(102.5) is None


def test_a_checkpoint_is_due_by_count_or_by_time() -> None:
    bench = Bench(settings(min_checkpoint_count=2, max_checkpoint_count=5, checkpoint_after=1000), count=50)
    consumer = bench.consumer(capacity=50)
    bench.ack(consumer, [0])
    assert bench.group.progress.due(bench.now + 9) is None
    bench.ack(consumer, [1])
    assert bench.group.progress.due(bench.now) is None
    assert bench.group.next_deadline(bench.now) == 101.0
    assert bench.group.progress.due(101.0) == 2
    bench.group.progress.written(2, 101.0)
    assert bench.group.progress.due(109.0) is None
    bench.ack(consumer, range(2, 7))
    assert bench.group.progress.due(101.0) == 7


def test_what_is_done_behind_a_message_that_is_not_does_not_count() -> None:
    bench = Bench(settings(min_checkpoint_count=3, max_checkpoint_count=6, checkpoint_after=1000), count=50)
    consumer = bench.consumer(capacity=50)
    bench.ack(consumer, [0, 1, *range(3, 20)])
    assert bench.group.progress.due(bench.now + 9) is None
    bench.ack(consumer, [2])
    assert bench.group.progress.due(bench.now) == 20
    bench.group.progress.written(20, bench.now)
    bench.ack(consumer, range(20, 25))
    assert bench.group.progress.due(bench.now) is None
    bench.ack(consumer, [25])
    assert bench.group.progress.due(bench.now) == 26


def test_one_unsettled_message_does_not_pile_up_the_others() -> None:
    bench = Bench(settings(message_timeout=10**9), count=20 * LAZY)
    consumer = bench.consumer(capacity=500)
    while bench.group.progress.cursor < bench.count:
        bench.ack(consumer, [order for order in bench.given(consumer) if order != 0])
    assert bench.group.progress.low() == 0
    assert len(bench.group.progress._ascending) < 4 * LAZY
    assert len(bench.group._deadlines) < 4 * LAZY
