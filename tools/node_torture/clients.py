"""The clients of a tortured node. Each continues through every kill and remembers its answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any
from uuid import UUID

from kt_es.eventstore.driver import (
    EventStoreDBClient,
    EventStoreDBClientException,
    NewEvent,
    StreamState,
    WrongCurrentVersion,
)

DEADLINE = 5.0  # seconds for one call
PAUSE = 0.02  # before an attempt is repeated


class Running:
    """Runs ``work`` in a thread with its own connection, until ``enough`` is set.

    ``interrupt`` ends a wait in ``work``.
    """

    def __init__(
        self,
        uri: str,
        name: str,
        work: Callable[[EventStoreDBClient], None],
        interrupt: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.enough = threading.Event()
        self.failure: BaseException | None = None
        self._uri = uri
        self._work = work
        self._interrupt = interrupt
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """Let the thread finish its current work, and raise if it failed."""
        self.enough.set()
        self._interrupt()
        self._thread.join(60)
        assert not self._thread.is_alive(), f"{self.name} hangs"
        self.check()

    def check(self) -> None:
        if self.failure is not None:
            raise AssertionError(f"{self.name}: {self.failure!r}") from self.failure

    def _run(self) -> None:
        try:
            while not self.enough.is_set():
                with EventStoreDBClient(self._uri) as client:
                    self._work(client)
        except BaseException as error:
            self.failure = error


class Writer:
    """Appends to ``stream``: with exact revisions if it writes ``alone``, otherwise without."""

    def __init__(self, uri: str, stream: str, alone: bool, random: Random) -> None:
        self.running = Running(uri, f"writer of {stream}", self._work)
        self.stream = stream
        self.batches: list[list[UUID]] = []  # acknowledged
        self.repeated = 0
        self._alone = alone
        self._random = random
        self._written = 0

    def _work(self, client: EventStoreDBClient) -> None:
        while not self.running.enough.is_set():
            batch = [
                NewEvent(
                    type="T",
                    data=self._random.randbytes(self._random.choice((0, 10, 300, 5000))),
                    content_type="application/octet-stream",
                )
                for _ in range(self._random.choice((1, 1, 1, 2, 5, 40)))
            ]
            self._until_acknowledged(client, batch)
            self.batches.append([one.id for one in batch])
            self._written += len(batch)

    def _until_acknowledged(self, client: EventStoreDBClient, batch: list[NewEvent]) -> None:
        expected: Any = StreamState.ANY
        if self._alone:
            expected = self._written - 1 if self._written else StreamState.NO_STREAM
        what: Any = batch[0] if len(batch) == 1 else batch
        while True:
            try:
                client.append_to_stream(self.stream, current_version=expected, events=what, timeout=DEADLINE)
                return
            except WrongCurrentVersion as error:
                raise AssertionError(f"{self.stream}: a repetition was not recognised") from error
            except EventStoreDBClientException:
                self.repeated += 1
                threading.Event().wait(PAUSE)


@dataclass(frozen=True, slots=True)
class Seen:
    """An event as a subscriber saw it."""

    stream: str
    revision: int
    position: int
    id: UUID


def seen(recorded: Any) -> Seen:
    return Seen(
        recorded.stream_name, recorded.stream_position, int(recorded.commit_position or 0), recorded.id
    )


class Follower:
    """A catch-up subscription. It continues after the last event that it saw, which must not come again."""

    def __init__(self, uri: str, stream: str | None) -> None:
        self.running = Running(uri, f"follower of {stream or '$all'}", self._work, self._stop)
        self.stream = stream
        self.seen: list[Seen] = []
        self.connections = 0
        self._subscription: Any = None

    def _work(self, client: EventStoreDBClient) -> None:
        while not self.running.enough.is_set():
            try:
                self._subscription = self._subscribe(client)
                self.connections += 1
                for recorded in self._subscription:
                    self._take(seen(recorded))
            except EventStoreDBClientException:
                threading.Event().wait(PAUSE)

    def _subscribe(self, client: EventStoreDBClient) -> Any:
        last = self.seen[-1] if self.seen else None
        if self.stream is None:
            return client.subscribe_to_all(commit_position=last.position if last else None)
        return client.subscribe_to_stream(self.stream, stream_position=last.revision if last else None)

    def _take(self, event: Seen) -> None:
        last = self.seen[-1] if self.seen else None
        if self.stream is not None:
            assert event.revision == (last.revision + 1 if last else 0), (last, event)
        assert last is None or event.position > last.position, (last, event)
        self.seen.append(event)

    def _stop(self) -> None:
        if self._subscription is not None:
            self._subscription.stop()


class GroupConsumer:
    """A consumer of a persistent subscription that acknowledges everything.

    Each connection has to begin after the checkpoint of the group, not later than the first event that was
    not acknowledged, and to skip nothing after that. ``order`` gives the position of an event in the group.
    """

    def __init__(self, uri: str, group: str, stream: str | None, order: Callable[[Seen], int]) -> None:
        self.running = Running(uri, f"consumer of {group}", self._work, self._stop)
        self.group = group
        self.stream = stream
        self.seen: list[Seen] = []  # in order, each event once
        self.connections = 0
        self.redelivered = 0
        self._order = order
        self._indexes: dict[UUID, int] = {}
        self._subscription: Any = None

    def _work(self, client: EventStoreDBClient) -> None:
        while not self.running.enough.is_set():
            try:
                checkpoint = self._checkpoint(client)
                self._subscription = self._read(client)
                self.connections += 1
                self._consume(checkpoint)
            except EventStoreDBClientException:
                threading.Event().wait(PAUSE)

    def _checkpoint(self, client: EventStoreDBClient) -> int:
        info = client.get_subscription_info(self.group, self.stream, timeout=DEADLINE)
        text = info.last_checkpointed_event_position
        return int(text.rpartition(":")[2]) if text else -1

    def _read(self, client: EventStoreDBClient) -> Any:
        # Acknowledgements are batched, so that some of them are still outstanding when the node is killed.
        if self.stream is None:
            return client.read_subscription_to_all(self.group, max_ack_batch_size=20, max_ack_delay=0.05)
        return client.read_subscription_to_stream(
            self.group, self.stream, max_ack_batch_size=20, max_ack_delay=0.05
        )

    def _consume(self, checkpoint: int) -> None:
        before: int | None = None
        for recorded in self._subscription:
            event = seen(recorded)
            index = self._indexes.get(event.id)
            if before is None:
                assert index is not None or self._order(event) > checkpoint, (checkpoint, event)
                # The first event of a connection is either new, the next one, or it was seen before.
                before = len(self.seen) - 1 if index is None else index - 1
            if index is None:
                index = self._indexes[event.id] = len(self.seen)
                assert not self.seen or self._order(event) > self._order(self.seen[-1]), event
                self.seen.append(event)
            else:
                self.redelivered += 1
                assert self.seen[index] == event
            assert index == before + 1, (before, index, event)
            before = index
            self._subscription.ack(recorded)

    def _stop(self) -> None:
        if self._subscription is not None:
            self._subscription.stop()
