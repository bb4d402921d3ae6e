"""Rounds of SIGKILL on a node with writers and subscribers, and the checks afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from kt_es.eventstore.driver import EventStoreDBClient
from kt_es.node.ops.checking import check
from tests.contracts.nodes import NodeProcess
from tools.node_torture.clients import Follower, GroupConsumer, Running, Seen, Writer, seen

SHARED = ("shared-0", "shared-1")
PATIENCE = 120.0


@dataclass(slots=True)
class Result:
    """The counts of a torture."""

    rounds: int = 0
    cut_starts: int = 0
    checks: int = 0
    appends: int = 0
    events: int = 0
    repeated: int = 0
    connections: int = 0
    redelivered: int = 0

    def __str__(self) -> str:
        return (
            f"{self.rounds} kills, {self.cut_starts} more during a start, {self.checks} checks of the "
            f"data; {self.appends} appends with {self.events} events acknowledged, {self.repeated} attempts "
            f"without an answer; {self.connections} subscriptions, {self.redelivered} events delivered again"
        )


@dataclass
class Torture:
    """Kills a node in ``base`` ``rounds`` times. ``seed`` determines the random choices."""

    base: Path
    seed: int
    rounds: int
    report: Callable[[str], None]
    result: Result = field(default_factory=Result)

    def run(self) -> None:
        """Run all rounds. Raises ``AssertionError`` if an acknowledged event was lost, repeated or moved."""
        random = Random(self.seed)
        with NodeProcess(self.base / "node") as node:
            self._make_groups(node)
            writers = self._writers(node, random)
            followers = [Follower(node.uri, None), Follower(node.uri, SHARED[0])]
            consumers = [
                GroupConsumer(node.uri, "of-stream", SHARED[1], lambda event: event.revision),
                GroupConsumer(node.uri, "of-all", None, lambda event: event.position),
            ]
            taking_part: list[Writer | Follower | GroupConsumer] = [*writers, *followers, *consumers]
            clients = [one.running for one in taking_part]
            for client in clients:
                client.start()
            for number in range(self.rounds):
                self._round(node, random, writers, clients)
                if (number + 1) % 20 == 0:
                    self.report(f"{number + 1} rounds")
            self._settle(node, writers, followers, consumers)
            assert node.stop() == 0
        self._check_data()

    @staticmethod
    def _make_groups(node: NodeProcess) -> None:
        with EventStoreDBClient(node.uri) as client:
            often: Any = {"min_checkpoint_count": 1, "max_checkpoint_count": 50, "checkpoint_after": 0.1}
            client.create_subscription_to_stream("of-stream", SHARED[1], **often)
            client.create_subscription_to_all(
                "of-all", filter_include=(r"shared-\d",), filter_by_stream_name=True, **often
            )

    def _writers(self, node: NodeProcess, random: Random) -> list[Writer]:
        streams = [(f"alone-{number}", True) for number in range(4)]
        streams += [(SHARED[number % 2], False) for number in range(4)]
        return [Writer(node.uri, stream, alone, Random(random.getrandbits(64))) for stream, alone in streams]

    # --- one round -------------------------------------------------------------------------------

    def _round(
        self, node: NodeProcess, random: Random, writers: list[Writer], clients: list[Running]
    ) -> None:
        # Some kills hit a node that has just started. Most hit a node that is working.
        goal = _appends(writers) + random.choice((0, 1, 10, 50, 150))
        _until(lambda: _appends(writers) >= goal, writers[0].running)
        threading.Event().wait(random.uniform(0, 0.1))
        node.kill()
        self.result.rounds += 1
        if random.random() < 0.2:
            self._cut_start(node, random)
        if random.random() < 0.1:
            self._check_data()
        node.start()
        for client in clients:
            client.check()

    def _cut_start(self, node: NodeProcess, random: Random) -> None:
        """Start the node, and kill it at a random moment of its start."""
        command = [sys.executable, "-m", "kt_es.node", "--data", str(node.data), "--listen", node.address]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            threading.Event().wait(random.uniform(0.2, 1.5))
            process.send_signal(signal.SIGKILL)
        self.result.cut_starts += 1

    def _check_data(self) -> None:
        report = check(self.base / "node")
        assert report.sound, report.problems
        self.result.checks += 1

    # --- the end ---------------------------------------------------------------------------------

    def _settle(
        self,
        node: NodeProcess,
        writers: list[Writer],
        followers: list[Follower],
        consumers: list[GroupConsumer],
    ) -> None:
        for writer in writers:
            writer.running.finish()
        result = self.result
        result.appends = sum(len(writer.batches) for writer in writers)
        result.events = sum(len(batch) for writer in writers for batch in writer.batches)
        result.repeated = sum(writer.repeated for writer in writers)
        with EventStoreDBClient(node.uri) as client:
            everything = [seen(one) for one in client.read_all(timeout=PATIENCE)]
            streams = {name: [one for one in everything if one.stream == name] for name in _names(writers)}
            for name, events in streams.items():
                assert events == [seen(one) for one in client.get_stream(name, timeout=PATIENCE)]
        _check_streams(writers, everything, streams)
        shared = sorted((one for name in SHARED for one in streams[name]), key=lambda one: one.position)
        wanted: list[tuple[Follower | GroupConsumer, list[Seen]]] = [
            (followers[0], everything),
            (followers[1], streams[SHARED[0]]),
            (consumers[0], streams[SHARED[1]]),
            (consumers[1], shared),
        ]
        for subscriber, events in wanted:
            _follow_up(subscriber, len(events))
            assert subscriber.seen == events, f"{subscriber.running.name} saw something else than there is"
            result.connections += subscriber.connections
        result.redelivered = sum(consumer.redelivered for consumer in consumers)


def _follow_up(subscriber: Follower | GroupConsumer, count: int) -> None:
    _until(lambda: len(subscriber.seen) >= count, subscriber.running)
    subscriber.running.finish()


def _appends(writers: list[Writer]) -> int:
    return sum(len(writer.batches) for writer in writers)


def _names(writers: list[Writer]) -> set[str]:
    return {writer.stream for writer in writers}


def _check_streams(writers: list[Writer], everything: list[Seen], streams: dict[str, list[Seen]]) -> None:
    positions = [one.position for one in everything]
    assert positions == sorted(set(positions)), "positions repeat or do not ascend"
    for name, events in streams.items():
        assert [one.revision for one in events] == list(range(len(events))), f"{name} has gaps"
        ids = [one.id for one in events]
        index = {id_: at for at, id_ in enumerate(ids)}
        assert len(index) == len(ids), f"{name} has an event twice"
        acknowledged = [batch for writer in writers if writer.stream == name for batch in writer.batches]
        for batch in acknowledged:
            start = index.get(batch[0], -1)
            assert ids[start : start + len(batch)] == batch, f"{name}: an acknowledged append is not there"
        # Each writer has waited for its last answer, so the stream may have only acknowledged events.
        assert len(ids) == sum(map(len, acknowledged)), f"{name} has events that were never acknowledged"
        for writer in writers:
            if writer.stream == name:
                starts = [index[batch[0]] for batch in writer.batches]
                assert starts == sorted(starts), f"{name}: appends of one writer changed places"


def _until(condition: Callable[[], bool], client: Running) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        client.check()
        assert time.monotonic() < end, f"{client.name} has not come to the end"
        threading.Event().wait(0.05)
