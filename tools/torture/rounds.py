"""The rounds of a torture: faults, healing, recovery, and then all checks."""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kt_es.client.client import Client
from kt_es.errors import RefusedError, UnavailableError, VerificationError
from kt_es.eventstore.connecting import connect
from kt_es.eventstore.esdb import EsdbLog
from tools.torture.checks import Checks
from tools.torture.directory import CLIENTS, SIGNERS, TWIN, TortureDirectory, TortureError
from tools.torture.faults import FREEZE, Faults
from tools.torture.outage import PROFILE, RESUME_SECONDS, NodeOutage, freeze_node
from tools.torture.seen import Seen
from tools.torture.writers import OWNER, Crew

RECOVERY_SECONDS = 60.0
# A verification from the start takes minutes with tens of thousands of records. One more comes at the end.
FROM_START_EVERY = 50
TAKEOVER_EVERY = 10
TOGETHER_EVERY = 10
# How the active signer is held, by turns: frozen, or cut off from the network.
TAKEOVERS = (FREEZE, "network drop", FREEZE, "network half-open")


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a torture. ``seconds`` limits all rounds together.

    The node is frozen once for ``frozen`` seconds; with 0 it is never frozen.
    """

    rounds: int
    seed: int
    seconds: float
    frozen: float


@dataclass(slots=True)
class Result:
    """What a torture did and measured, even if it failed before its end."""

    rounds: int = 0
    epochs: int = 0
    records: int = 0
    seconds: float = 0.0
    connections: int = 0
    injected: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    recoveries: list[float] = field(default_factory=list)
    takeovers: list[float] = field(default_factory=list)
    redelivered: list[int] = field(default_factory=list)
    outage: NodeOutage | None = None

    def lines(self) -> list[str]:
        """Return the summary for people."""
        acknowledged = (
            self.counts["submissions acknowledged"] + self.counts["appends to the queue acknowledged"]
        )
        lines = [
            f"{self.rounds} rounds in {self.seconds:.0f} s, {sum(self.injected.values())} faults, "
            f"{self.epochs} epochs, {self.records} records, {self.connections} connections to the node",
            f"{acknowledged} submissions acknowledged, each decided exactly once",
        ]
        if self.recoveries:
            lines.append(
                f"recovery in seconds: {min(self.recoveries):.1f} shortest, "
                f"{statistics.median(self.recoveries):.1f} median, {max(self.recoveries):.1f} longest"
            )
        if self.takeovers:
            lines.append(f"take-over by the standby: {_spread(self.takeovers)} s")
        if self.redelivered:
            older = [behind for behind in self.redelivered if behind]
            lines.append(
                f"node back with an older checkpoint: {len(older)} of {len(self.redelivered)} times, "
                f"by up to {max(self.redelivered)} events"
            )
        if self.outage is not None:
            lines.append(
                f"frozen node: {len(self.outage.lookups)} verified lookups, the slowest "
                f"{max(self.outage.lookups):.2f} s; {len(self.outage.refusals)} submissions answered 503, "
                f"the slowest after {max(self.outage.refusals):.1f} s; "
                f"resumed after {self.outage.resumed:.1f} s"
            )
        for title, counter in (("injected", self.injected), ("counted", self.counts)):
            lines.append(f"{title}:")
            lines += [f"  {number:7d}  {what}" for what, number in sorted(counter.items())]
        return lines


def _spread(values: list[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}"


class Torture:
    """A directory with writers, and its rounds. ``say`` gets a line for each round."""

    def __init__(self, options: Options, base: Path, say: Callable[[str], None]) -> None:
        self.result = Result()
        self._options = options
        self._say = say
        self._choose = random.Random(options.seed)
        self._directory = TortureDirectory(base)
        self._seen = Seen()
        self._checks = Checks(self._directory.settings, base / "checks", self._seen)
        self._faults = Faults(self._directory, self._choose)
        self._crew = Crew(self._directory, self._seen, str(options.seed))
        self._probes = 0
        self._log: EsdbLog | None = None

    def run(self) -> None:
        """Run all rounds and stop all processes. Raises ``TortureError`` if a check fails."""
        begun = time.monotonic()
        clean = False
        try:
            self._directory.begin()
            self._log = connect(self._directory.log_uri)
            self._crew.start()
            for number in range(1, self._options.rounds + 1):
                if time.monotonic() - begun > self._options.seconds:
                    self._say(f"time is up before round {number}")
                    break
                self._round(number)
            self._crew.stop()
            self._checked("at the end", from_start=True)
            clean = True
        finally:
            self._crew.stop()
            if self._log is not None:
                self._log.close()
            self._collect(time.monotonic() - begun)
            self._directory.stop(clean)
        self._directory.check_alive()
        disks = [self._directory.members[name].data for name in (*CLIENTS, TWIN)]
        self._checks.check_disks([disk for disk in disks if disk.exists()])

    def _collect(self, seconds: float) -> None:
        result, faults = self.result, self._faults
        result.seconds = seconds
        result.epochs, result.records = self._checks.epochs, self._checks.records
        result.connections = self._directory.network.connections
        result.injected, result.takeovers, result.redelivered = (
            faults.injected,
            faults.takeovers,
            faults.redelivered,
        )
        result.counts = self._seen.counts + self._checks.books.counts

    def _round(self, number: int) -> None:
        scenario = self._scenario(number)
        what = self._random_faults() if scenario is None else scenario()
        healed = time.monotonic()
        self._directory.heal()
        limit = RECOVERY_SECONDS
        outage = self.result.outage
        if outage is not None and not outage.resumed:
            healed, limit = outage.woken, RESUME_SECONDS
        recovery, last = self._recovered(healed, limit)
        if outage is not None and not outage.resumed:
            outage.resumed = recovery
        self.result.recoveries.append(recovery)
        self.result.rounds = number
        self._checked(
            f"round {number}: {what}; recovered in {recovery:.1f} s (last {last})",
            number % FROM_START_EVERY == 0 and number < self._options.rounds,
        )

    def _scenario(self, number: int) -> Callable[[], str] | None:
        options = self._options
        if options.frozen and number == (options.rounds + 1) // 2:
            return self._freeze
        if number % TOGETHER_EVERY == 7:
            return lambda: f"two signers at once for {self._faults.sign_together()} epochs"
        if number % TAKEOVER_EVERY == 3:
            how = TAKEOVERS[number // TAKEOVER_EVERY % len(TAKEOVERS)]
            return lambda: f"take-over by {how} in {self._faults.take_over(how):.1f} s"
        return None

    def _freeze(self) -> str:
        seconds = self._options.frozen
        self._faults.injected["freeze node for minutes"] += 1
        self.result.outage = freeze_node(self._directory, seconds)
        return f"node frozen for {seconds:.0f} s"

    def _random_faults(self) -> str:
        faults, steps = self._faults.plan()
        begun = time.monotonic()
        pause = threading.Event()
        for step in steps:
            while (left := step.at - (time.monotonic() - begun)) > 0:
                pause.wait(min(left, 0.2))
            self._directory.check_alive()
            self._seen.check()
            step.act()
        return ", ".join(map(str, faults))

    def _recovered(self, healed: float, limit: float) -> tuple[float, str]:
        """Return the seconds from healing until everything works, and what worked last."""
        with self._directory.client(3.0) as client:
            epoch: int | None = None
            last = "nothing"
            pause = threading.Event()
            while True:
                self._directory.check_alive()
                self._seen.check()
                if epoch is None:
                    epoch = self._published(client)
                missing = self._missing(epoch)
                if not missing:
                    return time.monotonic() - healed, last
                last = missing
                if time.monotonic() - healed > limit:
                    raise TortureError(f"not recovered within {limit:.0f} s, what is missing: {missing}")
                pause.wait(0.05)

    def _missing(self, epoch: int | None) -> str:
        """Return what does not work yet; empty if everything works."""
        if epoch is None:
            return "a change proven in a head"
        if not self._directory.is_ready():
            return "the front end ready"
        if self._directory.spoken("monitor").verified < epoch:
            return "the monitor"
        if not self._directory.has_roles():
            roles = [self._directory.spoken(name).role or "starting" for name in SIGNERS]
            return f"the signers' places ({', '.join(roles)})"
        return ""

    def _published(self, client: Client) -> int | None:
        """Publish a new entry and return the epoch that proves it; None if this does not work yet."""
        self._probes += 1
        try:
            return client.publish(
                f"probe-{self._probes}@example.org", PROFILE, [OWNER], wait=2.0
            ).lookup.epoch
        except (UnavailableError, RefusedError):
            return None
        except VerificationError as error:
            if error.step != "rollback":
                raise TortureError(f"a client refuses: {error}") from error
            return None

    def _checked(self, what: str, from_start: bool) -> None:
        if self._log is None:
            raise TortureError("there is no log to check")
        begun = time.monotonic()
        head = self._checks.verify(self._log)
        if from_start:
            self._checks.verify_from_start(self._log)
        self._say(
            f"{what}; checked epoch {head.epoch}, {head.log_size} records"
            f"{' from the start' if from_start else ''} in {time.monotonic() - begun:.1f} s"
        )
