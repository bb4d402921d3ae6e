"""The faults and how they are injected. A seeded bag draws them, so that all are equally frequent."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kt_es.errors import UnavailableError
from kt_es.eventstore import driver
from kt_es.eventstore.connecting import connect
from kt_es.formats.heads import HeadEvent, SignedMapHead
from signer.service import GROUP
from tools.torture.directory import (
    CLIENTS,
    PROCESSES,
    SIGNERS,
    TWIN,
    WRITERS,
    TortureDirectory,
    TortureError,
    eventually,
)
from tools.torture.proxy import Mode

TAKEOVER_SECONDS = 30.0
# Epochs that each of two simultaneous signers has to publish.
EPOCHS_TOGETHER = 4


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault, and the process that it affects."""

    kind: str
    target: str

    def __str__(self) -> str:
        return f"{self.kind} {self.target}"


@dataclass(frozen=True, slots=True)
class Step:
    """An action, ``at`` seconds after the begin of a round."""

    at: float
    name: str
    act: Callable[[], None]


NETWORK = {f"network {mode.value}": mode for mode in Mode if mode is not Mode.PASS}
KILL, FREEZE, RESTART, WIPE, OLD_CHECKPOINT = "kill", "freeze", "restart", "wipe", "old checkpoint"

ALL = (
    *(Fault(KILL, name) for name in (*PROCESSES, "node", *SIGNERS)),
    *(Fault(FREEZE, name) for name in (*PROCESSES, "node")),
    Fault(RESTART, "node"),
    *(Fault(RESTART, name) for name in SIGNERS),
    *(Fault(WIPE, name) for name in CLIENTS),
    Fault(OLD_CHECKPOINT, "node"),
    Fault(OLD_CHECKPOINT, "node"),
    *(Fault(kind, name) for kind in NETWORK for name in (*CLIENTS, WRITERS)),
)


def drawn(choose: random.Random) -> Iterator[Fault]:
    """Yield faults without end: the whole bag, shuffled, again and again."""
    while True:
        yield from choose.sample(ALL, len(ALL))


class Faults:
    """Injects faults into a directory, and counts those that were really injected."""

    def __init__(self, directory: TortureDirectory, choose: random.Random) -> None:
        self._directory = directory
        self._choose = choose
        self._bag = drawn(choose)
        self.injected: Counter[str] = Counter()
        self.redelivered: list[int] = []  # number of events by which a checkpoint was behind the last head
        self.takeovers: list[float] = []  # seconds

    def plan(self) -> tuple[list[Fault], list[Step]]:
        """Return one to four faults, and their steps in the order of time."""
        faults = [next(self._bag) for _ in range(self._choose.choice((1, 2, 2, 3, 4)))]
        steps = [step for fault in faults for step in self._steps(fault)]
        return faults, sorted(steps, key=lambda step: step.at)

    def _steps(self, fault: Fault) -> list[Step]:
        directory, target = self._directory, fault.target
        begin = self._choose.uniform(0.0, 2.0)
        end = begin + self._choose.choice((0.2, 1.0, 2.0, 4.0)) * self._choose.uniform(0.7, 1.3)

        def count() -> None:
            self.injected[str(fault)] += 1

        def step(at: float, act: Callable[[], None]) -> Step:
            return Step(at, str(fault), act)

        if fault.kind == KILL:
            acts = (lambda: directory.kill(target), lambda: directory.start(target))
        elif fault.kind == FREEZE:
            acts = (lambda: directory.freeze(target), lambda: directory.wake(target))
        elif fault.kind == RESTART:
            acts = (lambda: directory.kill(target, signal.SIGTERM), lambda: directory.start(target))
        elif fault.kind == WIPE:
            acts = (lambda: directory.wipe(target), lambda: directory.start(target))
        elif fault.kind == OLD_CHECKPOINT:
            kills = self._choose.choice((1, 2, 3))
            acts = (lambda: self._age_checkpoint(kills), lambda: None)
        else:
            mode, delay = NETWORK[fault.kind], self._choose.choice((0.02, 0.1, 0.4))
            acts = (
                lambda: directory.network.set_mode(target, mode, delay),
                lambda: directory.network.set_mode(target, Mode.PASS),
            )
        return [step(begin, count), step(begin, acts[0]), step(end, acts[1])]

    def _age_checkpoint(self, kills: int) -> None:
        """Make the node deliver events again from an older checkpoint, by killing it.

        The node writes the checkpoint of the group at most once a second. The events of a head are
        acknowledged at once, so a node that is killed right after a head restarts with an older checkpoint.
        Several kills in a row increase the distance. At the end the node is asked for the distance.
        """
        directory = self._directory
        for _ in range(kills):
            directory.wake("node")
            directory.start("node")
            if not self._await_head():
                return
            directory.kill("node")
            directory.start("node")
        behind = self._behind()
        if behind is not None:
            self.redelivered.append(behind)

    def _await_head(self) -> bool:
        """Wait for a new head. Return False if none comes, because other faults delay it."""
        stream = self._directory.settings.names.heads
        found: list[int] = []

        def look() -> bool:
            log = connect(self._directory.log_uri)
            try:
                found.append(log.last_revision(stream))
            except UnavailableError:
                return False
            finally:
                log.close()
            return found[-1] > found[0]

        try:
            eventually(look, "a head", 10)
        except TortureError:
            return False
        return True

    def _behind(self) -> int | None:
        """Return by how many events the checkpoint of the group is behind the last head; None if unknown."""
        names = self._directory.settings.names
        result: list[int] = []

        def ask() -> bool:
            client = driver.EventStoreDBClient(self._directory.log_uri)
            try:
                info = client.get_subscription_info(GROUP, names.queue, timeout=3)
                (event,) = client.get_stream(names.heads, backwards=True, limit=1, timeout=3)
            except driver.EventStoreDBClientException:
                return False
            finally:
                client.close()
            head = SignedMapHead.decode(HeadEvent.decode(event.data).smh_bytes).head
            result.append(max(0, head.queue_next - 1 - int(info.last_checkpointed_event_position or 0)))
            return True

        try:
            eventually(ask, "the node answers", 10)
        except TortureError:
            return None
        return result[0]

    # --- scenarios, each in a separate round ---------------------------------------------------------

    def take_over(self, how: str) -> float:
        """Hold the active signer until its standby has taken over, and return the seconds that this took.

        ``how`` is ``freeze`` or a mode of the network. Data that the old signer sent and the network held
        arrives late afterwards, and for a moment there are two signers.
        """
        directory = self._directory
        eventually(directory.has_roles, "one signer is active and one waits", 60)
        active = directory.active()
        (standby,) = [name for name in SIGNERS if name != active]
        if active is None:
            raise TortureError("no signer is active")
        before = directory.spoken(standby).said["active"]
        started = time.monotonic()
        if how == FREEZE:
            directory.freeze(active)
        else:
            directory.network.set_mode(active, NETWORK[how])
        self.injected[f"{how} the active signer until its standby has taken over"] += 1
        taken_over = lambda: directory.spoken(standby).said["active"] > before  # noqa: E731
        eventually(taken_over, f"{standby} takes over from {active} ({how})", TAKEOVER_SECONDS)
        seconds = time.monotonic() - started
        self.takeovers.append(seconds)
        eventually(self._await_head, f"{standby} publishes", 10)
        if how == FREEZE:
            directory.wake(active)
        directory.network.set_mode(active, Mode.PASS)
        return seconds

    def sign_together(self) -> int:
        """Run two signers at once, with no lock between them, and return how many epochs both published.

        Each signer has its own disk and puts markers into the queue. If a signer finds that the other one has
        published different bytes, it ends, which is an error.
        """
        directory = self._directory
        eventually(lambda: directory.active() is not None, "one signer is active", 60)
        both = (directory.active() or "", TWIN)
        directory.start(TWIN)
        self.injected["two signers at once"] += 1
        eventually(lambda: directory.spoken(TWIN).role == "active", "the other one is active too", 60)
        before = {name: directory.spoken(name).said["epoch"] for name in both}

        def together() -> int:
            directory.check_alive()
            return min(directory.spoken(name).said["epoch"] - before[name] for name in both)

        eventually(lambda: together() >= EPOCHS_TOGETHER, "both publish", 30)
        count = together()
        directory.kill(TWIN, signal.SIGTERM)
        return count
