"""Anything may happen to signers in any order; a ten-line model says what their logs must hold in the end."""

from __future__ import annotations

import os
import uuid
from itertools import pairwise

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kt_es.errors import MalformedError
from kt_es.eventstore.streams import ANY, NewEvent
from kt_es.formats.entries import Mutation
from kt_es.formats.queue import CONFIG, EPOCH_MARKER, Marker, decode_mutations
from tests.builders import OTHER_ORIGIN, START, marker, mutation, next_mutation, private_key
from tests.faults.machine import Fault, Machine, check_shared
from tests.reference.memory_log import MemoryLog
from tests.reference.signing import NAMES, check_logs, heads, records, submit

USERS = ("alice", "bob", "carol")
SIGNERS = ("a", "b")


def chain(user: str) -> list[Mutation]:
    """Three versions of a user, and another one for each of the last two places."""
    first = mutation(user)
    second = next_mutation(user, first)
    other = next_mutation(user, first, commits_to=bytes(32))
    third = next_mutation(user, second)
    return [first, second, other, third, next_mutation(user, other)]


FOREIGN = [
    marker(START + 10**9, key=private_key("eve")).encode(),
    marker(START + 10**9, origin=OTHER_ORIGIN).encode(),
]
POOL = [encoded.encode() for user in USERS for encoded in chain(user)] + [b"garbage"]


def model(log: MemoryLog) -> list[str]:
    """What each item of the queue must have been answered, all of them in order."""
    current: dict[bytes, Mutation] = {}
    taken: dict[bytes, Mutation] = {}
    last, told = 0, []
    for event in log.read(NAMES.queue):
        if event.type == CONFIG:
            told.append("config")
        elif event.type == EPOCH_MARKER:
            issued_at = Marker.decode(event.data).issued_at
            if event.data in FOREIGN:
                told.append("foreign-marker")
                continue
            told.append("epoch" if issued_at > last else "stale-marker")
            if issued_at > last:
                current, taken, last = {**current, **taken}, {}, issued_at
        else:
            told += [answer(item, current, taken) for item in decode_mutations(event.data)]
    return told


def answer(item: bytes, current: dict[bytes, Mutation], taken: dict[bytes, Mutation]) -> str:
    try:
        wanted = Mutation.decode(item)
    except MalformedError:
        return "malformed"
    index, now = wanted.entry.index, current.get(wanted.entry.index)
    if now is not None and now.entry_hash == wanted.entry_hash:
        return "replay"
    if (wanted.entry.version, wanted.entry.previous) != (
        (1, None) if now is None else (now.entry.version + 1, now.entry_hash)
    ):
        return "stale"
    if index in taken:
        return "duplicate" if taken[index].entry_hash == wanted.entry_hash else "conflict"
    taken[index] = wanted
    return "accepted"


class SignersInTrouble(RuleBasedStateMachine):
    """Two signers with disks of their own, one queue, and everything that can happen to them.

    The map is on their disks, or in a store that they share.
    """

    @initialize(shared=st.booleans())
    def begin(self, shared: bool) -> None:
        self.machine = Machine(shared=shared)

    @rule(chosen=st.lists(st.sampled_from(POOL), min_size=1, max_size=6))
    def submit(self, chosen: list[bytes]) -> None:
        submit(self.machine.log, chosen)

    @rule(back=st.integers(0, 5))
    def somebody_repeats_a_marker(self, back: int) -> None:
        """The bytes of one that stood in the queue, as another event: it ends no epoch twice."""
        markers = [event.data for event in self.machine.log.read(NAMES.queue) if event.type == EPOCH_MARKER]
        if markers:
            self.append_marker(markers[-1 - back % len(markers)])

    @rule(data=st.sampled_from(FOREIGN))
    def somebody_forges_a_marker(self, data: bytes) -> None:
        self.append_marker(data)

    def append_marker(self, data: bytes) -> None:
        self.machine.log.append(NAMES.queue, ANY, [NewEvent(EPOCH_MARKER, data, uuid.uuid4())])

    @rule(name=st.sampled_from(SIGNERS))
    def start(self, name: str) -> None:
        if name in self.machine.running:
            self.machine.take_place(name)
        else:
            self.machine.start(name)

    @rule(
        name=st.sampled_from(SIGNERS), back=st.integers(0, 8), seconds=st.sampled_from([0.0, 0.4, 1.2, 7.0])
    )
    def work(self, name: str, back: int, seconds: float) -> None:
        """A delivery, the latest, an old or a doubled one, and a look around; a frozen signer wakes here."""
        last = self.machine.log.last_revision(NAMES.queue)
        self.machine.deliver(name, max(0, last - back))
        self.machine.now += seconds
        self.machine.advance(name)

    @rule(name=st.sampled_from(SIGNERS), keep=st.booleans())
    def crash(self, name: str, keep: bool) -> None:
        self.machine.crash(name, keep=keep)

    @rule(name=st.sampled_from(SIGNERS))
    def lose_disk(self, name: str) -> None:
        self.machine.lose_disk(name)

    @rule(name=st.sampled_from(SIGNERS))
    def place_is_given_away(self, name: str) -> None:
        """The holder hangs, the server frees its place; the holder knows nothing of it and goes on."""
        self.machine.release(name)

    @rule(after=st.integers(1, 6), fault=st.sampled_from(list(Fault)), late_by=st.integers(1, 12))
    def something_will_fail(self, after: int, fault: Fault, late_by: int) -> None:
        self.machine.late_by = late_by
        self.machine.plan[self.machine.effects + after] = fault

    @precondition(lambda self: self.machine.shared is not None)
    @rule(keep=st.integers(1, 3))
    def operator_prunes_the_shared_store(self, keep: int) -> None:
        self.machine.prune(keep)

    @rule(skew=st.integers(-10_000_000, 10_000_000))
    def clock_steps(self, skew: int) -> None:
        self.machine.skew = skew

    @precondition(lambda self: self.machine.running)
    @rule()
    def server_delivers_from_an_older_checkpoint(self) -> None:
        for event in self.machine.log.read(NAMES.queue):
            for name in list(self.machine.running):
                self.machine.deliver(name, event.revision)

    @invariant()
    def nobody_diverged_and_heads_are_contiguous(self) -> None:
        if not hasattr(self, "machine"):
            return
        assert not self.machine.stopped
        published = heads(self.machine.log)
        assert [head.epoch for head in published] == list(range(1, len(published) + 1))
        assert all(a.timestamp < b.timestamp for a, b in pairwise(published))

    def teardown(self) -> None:
        if not hasattr(self, "machine"):
            return
        self.machine.settle(SIGNERS)
        self.nobody_diverged_and_heads_are_contiguous()
        told = [record.verdict.label for record in records(self.machine.log)]
        must = model(self.machine.log)
        assert told == must[: len(told)]
        # What is not yet told came after the last marker.
        assert set(must[len(told) :]) <= {"epoch", "stale-marker", "foreign-marker"}
        ledger = check_logs(self.machine.log)
        if self.machine.shared is not None:
            check_shared(self.machine.log, self.machine.shared, ledger.committed)


TestSignersInTrouble = SignersInTrouble.TestCase
TestSignersInTrouble.settings = settings(
    max_examples=int(os.environ.get("KT_MODEL_RUNS", "60")),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
