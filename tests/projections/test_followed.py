"""A worker's view of the replica of another process: one state at a time, also while pages are pruned."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kt_es.errors import DivergenceError, KtError, RollbackError
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.retention import prune
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.rocks_followed import FollowedStore
from kt_es.ledger.tables import FAMILIES
from kt_es.merkle.map import Root
from kt_es.server.health import NotReadyReason, Trouble
from projections.followed import Announcer, FollowedReplica, ReplicaState
from projections.service import FrontendService
from tests import builders as b
from tests.reference.frontends import until
from tests.reference.signed_streams import SignedStreams


class Both:
    """A replica and a worker in one process, which reads the replica's directory as if it were another."""

    def __init__(self, streams: SignedStreams, base: Path) -> None:
        self.streams = streams
        self.errors: list[KtError] = []
        self.store = RocksStore.open(base / "data", FAMILIES)
        self.replica = self._service(Ledger(self.store, b.ORIGIN, b.SIGNER_KEY), observers=[self])
        self.announcer = Announcer(self._tell)
        self.seen = FollowedStore(base / "data", FAMILIES, base / "scratch", self._is_full)
        # Without pages in memory, each lookup reads them from the store.
        ledger = Ledger(self.seen, b.ORIGIN, b.SIGNER_KEY, cache_bytes=1)
        self.followed = FollowedReplica(ledger, self.seen)
        self.worker = self._service(ledger, followed=self.followed)
        for service in (self.worker, self.replica):
            service.start()

    def _service(self, ledger: Ledger, **options: Any) -> FrontendService:
        return FrontendService(
            ledger,
            self.streams.names,
            b.VRF,
            lambda: self.streams.log,
            self.errors.append,
            now=lambda: self.streams.ledger.committed.standing.timestamp,
            **options,
        )

    # What the store and the announcer need, which exist before ``followed``.

    def _is_full(self) -> bool:
        return self.followed.is_full()

    def _tell(self, message: Any) -> None:
        self.followed.tell(message)

    # The observer of the replica, which exists before the announcer.

    def note(self, record: Any) -> None:
        self.announcer.note(record)

    def commit(self, epoch: int) -> None:
        self.announcer.commit(epoch)

    def restart(self) -> None:
        self.announcer.restart()

    def close(self) -> None:
        for service in (self.worker, self.replica):
            service.stop()
        self.seen.close()
        self.store.close()

    def until_committed(self, epoch: int) -> None:
        """Wait until both have the epoch. The worker may see it before the replica answers from it."""
        until(lambda: self.reached(epoch) and self.replica.directory.ledger.committed.epoch >= epoch)

    def reached(self, epoch: int) -> bool:
        return self.worker.directory.ledger.committed.epoch >= epoch


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    with closing(Both(SignedStreams(), tmp_path)) as made:
        yield made
        assert not made.errors


def test_a_verdict_is_heard_when_its_epoch_can_be_looked_up(both: Both) -> None:
    made = b.mutation("alice")
    heard = both.followed.waiters.register(made.encode())
    assert heard is not None
    both.streams.put_user("alice")
    both.streams.epoch()
    outcome = heard.result(30)
    assert outcome is not None
    assert outcome.record.verdict.succeeded
    assert both.reached(outcome.epoch)
    found = both.worker.directory.lookup(b.label_of("alice"))
    assert found.epoch == outcome.epoch
    assert found.answer.mutation == made


def test_openings_arrive_without_an_epoch(both: Both) -> None:
    both.streams.put_user("alice")
    both.streams.epoch()
    until(lambda: both.reached(1))
    until(
        lambda: both.seen.read_on() and both.worker.directory.lookup(b.label_of("alice")).profile is not None
    )


def test_an_erased_opening_is_not_shown_from_the_epoch_of_its_erasure_on(both: Both) -> None:
    made = both.streams.put_user("alice")
    both.streams.epoch()
    until(lambda: both.reached(1))
    assert both.worker.directory.lookup(b.label_of("alice")).result == "found"
    both.streams.erase(made)
    epoch = both.streams.epoch().epoch
    until(lambda: both.reached(epoch))
    found = both.worker.directory.lookup(b.label_of("alice"))
    assert (found.epoch, found.result, found.profile) == (epoch, "erased", None)


def test_a_lookup_whose_pages_were_pruned_under_it_is_answered_from_the_newest_epoch(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = both.streams.put_user("alice")
    both.streams.epoch()
    until(lambda: both.reached(1))
    ledger = both.worker.directory.ledger
    find, calls = ledger.map.find, list[int]()

    def pruned(root: Root, index: bytes) -> Any:
        calls.append(root.version)
        if len(calls) == 1:
            both.streams.put_user("alice", made)
            epoch = both.streams.epoch().epoch
            replica = both.replica.directory.ledger
            until(lambda: replica.committed.epoch == epoch)
            assert prune(replica, 1) > 0
            assert both.seen.read_on()
        return find(root, index)

    monkeypatch.setattr(ledger, "map", Pruning(pruned, ledger.map))
    found = both.worker.directory.lookup(b.label_of("alice"))
    assert (found.epoch, found.result) == (2, "found")
    assert calls == [1, 2]


class Pruning:
    """A map whose ``find`` is another one."""

    def __init__(self, find: Any, held: Any) -> None:
        self.find = find
        self._held = held

    def __getattr__(self, name: str) -> Any:
        return getattr(self._held, name)


def test_no_lookup_misses_a_page_while_epochs_follow_each_other_and_are_pruned(both: Both) -> None:
    users = [f"user{number}" for number in range(30)]
    last = {user: both.streams.put_user(user) for user in users}
    both.streams.epoch()
    until(lambda: both.reached(1))
    over, failed, answered = threading.Event(), list[Exception](), [0]

    def ask() -> None:
        before = 0
        try:
            while not over.is_set():
                for user in users:
                    found = both.worker.directory.lookup(b.label_of(user))
                    assert found.result == "found"
                    assert found.epoch >= before
                    before = found.epoch
                    answered[0] += 1
        except Exception as error:
            failed.append(error)

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    for number in range(40):
        for user in users[number % 3 :: 3]:
            last[user] = both.streams.put_user(user, last[user])
        epoch = both.streams.epoch().epoch
        both.until_committed(epoch)
        assert prune(both.replica.directory.ledger, 1) > 0
        if number % 10 == 0:
            both.store.compact()
    over.set()
    for asker in askers:
        asker.join(30)
    assert not failed
    assert answered[0] > 40


def test_a_replica_that_is_away_is_named_and_takes_no_submission(both: Both) -> None:
    both.streams.epoch()
    until(lambda: both.reached(1) and both.worker.watch.problem is None)
    assert not both.worker.health.troubles()
    both.followed.tell(None)
    (trouble,) = both.worker.health.troubles()
    assert trouble.reason is NotReadyReason.REPLICA_AWAY
    assert "answered from epoch 1" in trouble.sentence
    with pytest.raises(KtError, match="submit again later"):
        both.worker.directory.check_submissions()
    assert both.worker.directory.head().epoch == 1
    both.followed.tell(ReplicaState([Trouble(NotReadyReason.DENIED, "behind: a right is missing")]))
    assert [trouble.reason for trouble in both.worker.health.troubles()] == [NotReadyReason.DENIED]
    both.followed.tell(ReplicaState(is_full=True))
    with pytest.raises(KtError, match="disk"):
        both.worker.directory.check_submissions()
    both.followed.tell(ReplicaState())
    assert not both.worker.health.troubles()


def test_nothing_is_answered_once_the_replica_is_in_doubt(both: Both) -> None:
    both.streams.epoch()
    until(lambda: both.reached(1))
    for _ in range(2):
        both.followed.tell(ReplicaState(failure=RollbackError("the log was rolled back")))
    with pytest.raises(KtError, match="stopped serving"):
        both.worker.directory.head()
    assert next(trouble.reason for trouble in both.worker.health.troubles()) is NotReadyReason.ROLLBACK


def test_another_directory_in_the_same_place_is_noticed(both: Both) -> None:
    both.streams.epoch()
    until(lambda: both.reached(1))
    ledger = both.worker.directory.ledger
    later = replace(ledger.committed.standing, epoch=9)
    ledger.committed = replace(ledger.committed, standing=later)
    with pytest.raises(DivergenceError, match="went back from epoch 9 to 1"):
        ledger.reread()
