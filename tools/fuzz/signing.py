"""Runs a queue twice through the code of the real signer, and through a replay: all give the same bytes.

The second run crashes before events 1, 2, 4, 8 and so on, and begins its epoch again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import DivergenceError
from kt_es.eventstore.streams import Event, StreamNames, content_event
from kt_es.formats.codec import UINT_MAX
from kt_es.formats.queue import EPOCH_MARKER, Record, decode_records
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.replay import Replay
from kt_es.ledger.tables import FAMILIES
from signer.keys import KeyRing
from signer.work import EpochWork
from tests.builders import ORIGIN, SIGNER, SIGNER_KEY, marker, private_key
from tests.reference.memory_log import MemoryLog
from tools.fuzz.decoders import check

NAMES = StreamNames("people")
SIGNERS = {"signer": SIGNER, "next signer": private_key("next signer")}
KEYS = KeyRing(SIGNERS.values())
_BY_PUBLIC = {key.public: key for key in SIGNERS.values()}

QueueEvent = tuple[str, bytes]


@dataclass
class Run:
    """One signer on one log. ``step`` processes the next event of the queue. ``crash`` loses the epoch."""

    log: MemoryLog
    ledger: Ledger
    work: EpochWork
    outbox: int

    @classmethod
    def begin(cls, outbox: int) -> Run:
        log, ledger = MemoryLog(), _new_ledger()
        return cls(log, ledger, EpochWork(log, NAMES, ledger, KEYS, outbox), outbox)

    def step(self, revision: int, event: QueueEvent) -> None:
        kind, data = event
        there = content_event(NAMES.queue, kind, data)
        self.work.process(Event(NAMES.queue, revision, kind, data, there.id))
        if self.work.is_closed:
            self.work.finish()
            self.crash()

    def crash(self) -> None:
        self.work = EpochWork(self.log, NAMES, self.ledger, KEYS, self.outbox)

    def published(self, stream: str) -> list[bytes]:
        return [event.data for event in self.log.read(stream)]

    @property
    def signer(self) -> PrivateKey:
        """The signer key in force."""
        config = self.work.config
        return SIGNER if config is None else _BY_PUBLIC[config.signer_key.raw]


def _new_ledger() -> Ledger:
    return Ledger(MemoryStore(FAMILIES), ORIGIN, SIGNER_KEY)


def sign_queue(queue: Sequence[QueueEvent]) -> list[Record]:
    """Sign ``queue``, whose first event is the config of the directory; check all and return the records."""
    queue = list(queue)
    plain = Run.begin(1 << 20)
    for revision, event in enumerate(queue):
        plain.step(revision, event)
    _close(plain, queue)
    _same_after_crashes(plain, queue)
    _same_after_replay(plain)
    records = [
        Record.decode(record)
        for data in plain.published(NAMES.mutations)
        for record in decode_records(data)[1]
    ]
    check([record.sequence for record in records] == list(range(len(records))), "a sequence has a gap")
    return records


def _close(run: Run, queue: list[QueueEvent]) -> None:
    """End the last epoch, so that all its records are published."""
    timestamp = run.ledger.committed.standing.timestamp
    if run.work.size and timestamp < UINT_MAX:
        queue.append((EPOCH_MARKER, marker(timestamp + 1, key=run.signer).encode()))
        run.step(len(queue) - 1, queue[-1])
        check(run.ledger.committed.queue_next == len(queue), "a valid marker did not close the epoch")


def _same_after_crashes(plain: Run, queue: Sequence[QueueEvent]) -> None:
    again = Run.begin(1)
    for revision, event in enumerate(queue):
        if revision & (revision - 1) == 0:
            again.crash()
            for behind in range(again.ledger.committed.queue_next, revision):
                again.step(behind, queue[behind])
        again.step(revision, event)
    check(again.ledger.committed == plain.ledger.committed, "a signer that crashed commits something else")
    for stream in (NAMES.mutations, NAMES.heads):
        check(again.published(stream) == plain.published(stream), f"{stream} is another after crashes")


def _same_after_replay(plain: Run) -> None:
    follower = _new_ledger()
    epochs = sum(1 for _ in Replay(plain.log, NAMES, follower).catch_up())
    check(epochs == plain.ledger.committed.epoch, "the replay has not all epochs")
    check(follower.committed == plain.ledger.committed, "the replay commits something else")


def refuse_foreign(queue: Sequence[QueueEvent]) -> None:
    """Check that the signer stops at the first item of a queue that does not begin with the config."""
    run = Run.begin(1)
    try:
        run.step(0, queue[0])
    except DivergenceError:
        check(not run.published(NAMES.mutations), "something was published of a foreign queue")
        return
    check(False, "a foreign queue was taken")
