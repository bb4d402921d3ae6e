"""Signers, a log and their disks in one thread: every effect is counted, and can be made to fail.

An effect is an append, a write to a disk, or an acknowledgement. ``Machine.plan`` says what happens at
the n-th one; nothing else in here is random, and time is what the test says it is.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from kt_es.errors import KtError, UnavailableError, WrongRevisionError
from kt_es.eventstore.streams import ANY, Event, NewEvent
from kt_es.ledger.adoption import Adoption
from kt_es.ledger.cassandra_tables import ABOUT
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.proofs import head_at, prove_consistency
from kt_es.ledger.retention import check_epoch, prune
from kt_es.ledger.rows import Committed, StateTable
from kt_es.ledger.shared_store import LOCAL, SHARED, SharedStore
from kt_es.ledger.store import Change, Store
from kt_es.ledger.tables import FAMILIES, MUTATIONS_LOG
from signer.keys import KeyRing
from signer.limits import Effects, EpochLimits
from signer.loop import Signer
from tests.builders import ORIGIN, SIGNER, SIGNER_KEY, START, seed
from tests.reference.memory_log import MemoryLog
from tests.reference.signing import NAMES, new_log

# Small, so that an epoch takes several appends and several slices.
LIMITS = EpochLimits(batch_limit=8, outbox=600, unacknowledged=12, patience=0.3, watchdog=5.0)
SLICE = 12

T = TypeVar("T")


class Fault(Enum):
    """What becomes of one effect."""

    CRASH_BEFORE = "the process ends before it"
    CRASH_AFTER = "the process ends after it"
    FAIL = "it fails and is not done"
    FAIL_DONE = "it fails, but is done"
    FAIL_LATE = "it fails, and is done some effects later"


class Crash(BaseException):
    """The end of a process: nothing catches it but the machine."""


@dataclass(slots=True)
class Disk:
    """A store that loses what was not synced when the machine goes down, or keeps it, as it likes."""

    durable: MemoryStore = field(default_factory=lambda: MemoryStore(FAMILIES))
    unsynced: list[list[Change]] = field(default_factory=list)

    def crash(self, *, keep: bool) -> None:
        """The process has ended; with ``keep`` the operating system lived on."""
        if keep:
            for changes in self.unsynced:
                self.durable.write(changes, sync=False)
        self.unsynced = []


class Machine:
    """Named signers over one log. Each has a disk of its own; at most one holds the place at the queue."""

    def __init__(
        self, plan: dict[int, Fault] | None = None, late_by: int = 3, *, shared: bool = False
    ) -> None:
        """``late_by`` is how many effects an append that is late comes after: 1 is just before the next.

        With ``shared``, all signers have one map beside their disks, and a write to it is an effect, too.
        """
        self.shared = _SharedRows(SHARED) if shared else None
        self.late_by = late_by
        self.log: MemoryLog = new_log(min_interval=1_000)
        self.plan = {} if plan is None else plan
        self.effects = 0
        self.kinds: Counter[str] = Counter()
        self.now = 0.0
        self.skew = 0  # of the wall clock against the monotonic one, ms
        self.disks: dict[str, Disk] = {}
        self.running: dict[str, Signer] = {}
        self.holder: str | None = None
        self.acknowledged: set[int] = set()
        self.stopped: dict[str, KtError] = {}
        self._outages: tuple[type[BaseException], ...] = (UnavailableError, Crash)
        self._late: list[tuple[int, str, int, Sequence[NewEvent]]] = []
        self._late_rows: list[tuple[int, MemoryStore, list[Change]]] = []
        self._nonces = itertools.count()

    # --- effects ---------------------------------------------------------------------------------

    def fault(self, kind: str) -> Fault | None:
        """What happens to the effect that is about to be; appends that are late enough are done first."""
        self.effects += 1
        self.kinds[kind] += 1
        due = [late for late in self._late if late[0] <= self.effects]
        self._late = [late for late in self._late if late[0] > self.effects]
        for _, stream, expected, events in due:
            self._append_late(stream, expected, events)
        self._write_late(self.effects)
        return self.plan.pop(self.effects, None)

    def _append_late(self, stream: str, expected: int, events: Sequence[NewEvent]) -> None:
        try:
            self.log.append(stream, expected, events)
        except WrongRevisionError:
            return

    def append_later(self, stream: str, expected: int, events: Sequence[NewEvent]) -> None:
        self._late.append((self.effects + self.late_by, stream, expected, events))

    def write_later(self, store: MemoryStore, rows: list[Change]) -> None:
        self._late_rows.append((self.effects + self.late_by, store, rows))

    def _write_late(self, until: float) -> None:
        for at, store, rows in self._late_rows:
            if at <= until:
                store.write(rows)
        self._late_rows = [late for late in self._late_rows if late[0] > until]

    def heal(self) -> None:
        """No more faults, and nothing is late any more."""
        self.plan = {}
        self._write_late(float("inf"))
        late, self._late = self._late, []
        for _, stream, expected, events in late:
            self._append_late(stream, expected, events)

    # --- processes -------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start or restart a signer and let it recover; it becomes active if the place is free."""
        disk = self.disks.setdefault(name, Disk())
        ledger = Ledger(self.storage(disk), ORIGIN, SIGNER_KEY, slice_size=SLICE)
        signer = Signer(
            _Log(self),  # type: ignore[arg-type]
            NAMES,
            ledger,
            KeyRing([SIGNER]),
            effects=Effects(
                lambda: _Log(self),  # type: ignore[arg-type,return-value]
                lambda: START + self.skew + int(self.now * 1000),
                lambda: self.now,
                lambda: seed(f"machine {next(self._nonces)}")[:16],
            ),
            limits=lambda: LIMITS,
        )
        self.running[name] = signer
        self._do(name, signer.recover)
        self.take_place(name)

    def take_place(self, name: str) -> None:
        signer = self.running.get(name)
        if signer is not None and self.holder is None:
            self.holder = name
            self._do(name, lambda: signer.join(_Place(self, name)))

    def crash(self, name: str, *, keep: bool = True) -> None:
        """The end of a process; ``keep`` says whether what it had not synced survives."""
        if self.running.pop(name, None) is not None:
            self.disks[name].crash(keep=keep)
        self.release(name)

    def release(self, name: str) -> None:
        """The server gives the place away, whatever its holder believes."""
        if self.holder == name:
            self.holder = None

    def storage(self, disk: Disk) -> Store:
        """``disk`` as a process sees it that has just started; each of its writes is an effect."""
        own: Store = _Storage(self, disk)  # type: ignore[assignment]
        if self.shared is None:
            return own
        return SharedStore(own, _Shared(self, self.shared), 1 << 20, _AtOnce())  # type: ignore[arg-type]

    def prune(self, keep: int) -> None:
        """Do what ``kt store prune`` does in the shared store, beside the signers.

        A signer that works in an epoch that is not kept misses a page from now on, which is an outage.
        """
        assert self.shared is not None
        ledger = adopted(self.log, self.shared)
        if ledger.committed.epoch:
            prune(ledger, keep)
            self._outages = (*ledger.passing, Crash)

    def lose_disk(self, name: str) -> None:
        self.crash(name)
        self.disks.pop(name, None)

    def deliver(self, name: str, revision: int) -> None:
        """The subscription brings one event of the queue: any one, again or out of order."""
        signer = self.running.get(name)
        events = list(self.log.read(NAMES.queue, revision, 1))
        if signer is not None and events:
            self._do(name, lambda: signer.deliver(events[0]))

    def advance(self, name: str) -> None:
        signer = self.running.get(name)
        if signer is not None:
            self._do(name, signer.advance)

    def durable(self, name: str) -> int:
        """The queue position that is on a signer's disk."""
        committed = StateTable(self.disks[name].durable).committed(ORIGIN, SIGNER_KEY)
        return 0 if committed is None else committed.queue_next

    def _do(self, name: str, step: object) -> None:
        """Run a step of a process; an outage or a crash ends it, anything else ends it for good."""
        try:
            step()  # type: ignore[operator]
        except self._outages:
            self.crash(name)
        except KtError as error:
            self.stopped[name] = error
            self.crash(name)

    # --- to the end ------------------------------------------------------------------------------

    def settle(self, names: Iterable[str] = ("a",)) -> None:
        """Heal everything and let signers work until the queue is decided and acknowledged."""
        self.heal()
        names = list(names)
        end = self.log.last_revision(NAMES.queue) + 1
        for _ in range(200):
            for name in names:
                if name not in self.running:
                    self.start(name)
                self.take_place(name)
            active = self.holder or names[0]
            for event in self.log.read(NAMES.queue):
                if event.revision not in self.acknowledged:
                    self.deliver(active, event.revision)
            self.now += 1.0
            self.advance(active)
            committed = self.running[active]._ledger.committed if active in self.running else None
            if committed is not None and committed.queue_next >= end:
                return
        raise AssertionError(f"not settled: {self.stopped}")


class _Place:
    """The group's one place: acknowledgements are effects too."""

    def __init__(self, machine: Machine, name: str) -> None:
        self._machine = machine
        self._name = name

    def __iter__(self) -> Iterator[Event]:
        return iter(())

    def stop(self) -> None:
        return

    def ack(self, event: Event) -> None:
        assert event.revision < self._machine.durable(self._name), "acknowledged before it was durable"
        fault = self._machine.fault("acknowledge")
        if fault is Fault.CRASH_BEFORE:
            raise Crash
        if fault in (None, Fault.CRASH_AFTER, Fault.FAIL_DONE):
            self._machine.acknowledged.add(event.revision)
        if fault is Fault.CRASH_AFTER:
            raise Crash
        if fault is not None:
            raise UnavailableError("the acknowledgement failed")


class _Log:
    """The machine's log as a signer sees it: reads go through, appends may fail."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def __getattr__(self, name: str) -> object:
        return getattr(self._machine.log, name)

    def append(self, stream: str, expected: int, events: Sequence[NewEvent]) -> None:
        # The fence between signers; a log of ours need not show what one without it would do.
        assert stream == NAMES.queue or expected != ANY, "appended to a log wherever it ends"
        fault = self._machine.fault(f"append to {stream}")
        if fault is Fault.CRASH_BEFORE:
            raise Crash
        if fault is Fault.FAIL_LATE:
            self._machine.append_later(stream, expected, events)
        if fault in (None, Fault.CRASH_AFTER, Fault.FAIL_DONE):
            self._machine.log.append(stream, expected, events)
        if fault is Fault.CRASH_AFTER:
            raise Crash
        if fault is not None:
            raise UnavailableError("the append failed")


class _Storage:
    """A disk as a process sees it: what it wrote is there, synced or not."""

    def __init__(self, machine: Machine, disk: Disk) -> None:
        self._machine = machine
        self._disk = disk
        # What this process sees: everything durable, and its own unsynced writes.
        self._seen = MemoryStore(FAMILIES)
        for family in FAMILIES:
            self._seen.write([(family, key, value) for key, value in disk.durable.scan(family)])

    def __getattr__(self, name: str) -> object:
        return getattr(self._seen, name)

    def write(self, changes: Iterable[Change], sync: bool = True) -> None:
        kept = list(changes)
        fault = self._machine.fault("commit" if sync else "slice")
        if fault is Fault.CRASH_BEFORE:
            raise Crash
        if fault in (None, Fault.CRASH_AFTER, Fault.FAIL_DONE):
            self._seen.write(kept)
            self._disk.unsynced.append(kept)
            if sync:
                self._disk.crash(keep=True)
        if fault is Fault.CRASH_AFTER:
            raise Crash
        if fault is not None:
            # A process whose disk fails ends; it is started again once the disk is mended.
            raise UnavailableError("the disk failed")


class _AtOnce(Executor):
    """Makes each write before the caller goes on, so that effects have an order."""

    def submit(self, call: Callable[..., T], /, *args: object, **kwargs: object) -> Future[T]:
        future: Future[T] = Future()
        future.set_result(call(*args, **kwargs))
        return future


class _SharedRows(MemoryStore):
    """Rows of which those in ``about`` may change: the largest value stays, whatever is written last."""

    def write(self, changes: Iterable[Change], sync: bool = True) -> None:
        super().write(
            (family, key, max(value or b"", self.get(family, key) or b"") if family == ABOUT else value)
            for family, key, value in changes
        )


class _Shared:
    """The map that all signers share: there is no atomic write, and a row of an epoch is never changed."""

    def __init__(self, machine: Machine, store: MemoryStore) -> None:
        self._machine = machine
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def write(self, changes: Iterable[Change], sync: bool = True) -> None:
        rows = list(changes)
        for family, key, value in rows:
            assert value is not None, "a signer deletes nothing that is shared"
            there = self._store.get(family, key)
            assert family == ABOUT or there in (None, value), f"a shared row of {family} was changed"
        fault = self._machine.fault("shared write")
        if fault in (None, Fault.CRASH_AFTER, Fault.FAIL_DONE):
            self._store.write(rows)
        elif fault in (Fault.CRASH_BEFORE, Fault.FAIL):
            # Any part of it may have been written.
            self._store.write(rows[::2])
        if fault in (Fault.CRASH_BEFORE, Fault.CRASH_AFTER):
            raise Crash
        if fault is Fault.FAIL_LATE:
            self._machine.write_later(self._store, rows)
        if fault is not None:
            raise UnavailableError("the shared store failed")


def adopted(log: MemoryLog, rows: MemoryStore) -> Ledger:
    """The newest published epoch, as a process has it that begins with nothing."""
    ledger = Ledger(SharedStore(MemoryStore(LOCAL), rows, 1 << 20), ORIGIN, SIGNER_KEY)
    list(Adoption(log, NAMES, ledger, completes=True).jump())
    return ledger


def check_shared(log: MemoryLog, rows: MemoryStore, replayed: Committed) -> None:
    """What must hold of a shared store: its newest state is that of a replay, and every row verifies."""
    ledger = adopted(log, rows)
    assert ledger.committed == replayed
    if replayed.epoch:
        problems: list[str] = []
        assert check_epoch(ledger, replayed.epoch, problems.append) == replayed.root.size
        assert problems == []
        for epoch in range(1, replayed.epoch + 1):
            _, head = head_at(ledger, epoch)
            prove_consistency(ledger, replayed, MUTATIONS_LOG, head.log_size, replayed.log.size)
