"""Whoever resumes compares first: rolled back and forked logs, for everybody who follows one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kt_es.errors import DivergenceError, EquivocationError, KtError, RollbackError
from kt_es.eventstore.streams import NewEvent, Subscription, content_event
from kt_es.evidence import convict
from kt_es.formats.evidence import Evidence
from kt_es.formats.heads import MAP_HEAD, HeadEvent
from kt_es.ledger.anchor import Anchor
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.tables import FAMILIES
from projections.auditor import audit
from projections.monitor import MonitorSettings, serve
from signer.keys import KeyRing
from signer.loop import Signer
from signer.patrol import Patrol
from signer.work import EpochWork, publish
from tests import builders as b
from tests.reference.forks import Turning, first_epochs, story
from tests.reference.frontends import Front, front, until
from tests.reference.memory_log import MemoryLog
from tests.reference.signed_streams import SignedStreams
from tests.reference.signing import LIMITS, NAMES, effects, new_ledger, wait_until

NAMED = ("alice", "bob", "carol")
OTHER = ("alice", "bob", "eve", "dave")


def verified(*users: str) -> Ledger:
    """A ledger that has verified this story."""
    ledger = new_ledger()
    audit(story(*users).log, NAMES, ledger, with_queue=False, now=lambda: b.START)
    return ledger


def refused(log: object, ledger: Ledger) -> KtError:
    with pytest.raises(KtError) as caught:
        audit(log, NAMES, ledger, with_queue=False, now=lambda: b.START)  # type: ignore[arg-type]
    return caught.value


def convicts(error: BaseException | None, epoch: int) -> None:
    assert isinstance(error, EquivocationError)
    assert f"the log holds another signed head of epoch {epoch}" in str(error)
    assert error.evidence is not None
    assert (
        convict(Evidence.decode(error.evidence))
        == f"the directory signed two different heads of epoch {epoch}"
    )


# --- audit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [0, 1, 2])
def test_an_audit_that_resumes_on_a_shorter_log_names_a_rollback(left: int) -> None:
    error = refused(first_epochs(story(*NAMED), left), verified(*NAMED))
    assert isinstance(error, RollbackError)
    assert error.exit_code == 4
    assert "the log was rolled back: kt_heads-people has no head of epoch 3" in str(error)


def test_an_audit_that_resumes_on_a_fork_has_evidence() -> None:
    error = refused(story(*OTHER).log, verified(*NAMED))
    convicts(error, 3)
    assert error.exit_code == 5


def test_a_head_that_the_directory_did_not_sign_convicts_nobody() -> None:
    log = first_epochs(story(*NAMED), 3)
    log._streams[NAMES.heads][2] = replace(log._streams[NAMES.heads][2], data=b"junk")
    error = refused(log, verified(*NAMED))
    assert isinstance(error, DivergenceError)
    assert "another head of epoch 3" in str(error)
    assert "has not signed it" in str(error)


def test_other_checkpoints_beside_the_same_head_convict() -> None:
    told, other = story(*NAMED), story(*OTHER)
    log = first_epochs(told, 3)
    ours = HeadEvent.decode(log._streams[NAMES.heads][2].data)
    theirs = HeadEvent.decode(other.log._streams[NAMES.heads][2].data)  # type: ignore[attr-defined]
    mixed = replace(ours, heads_checkpoint=theirs.heads_checkpoint).encode()
    log._streams[NAMES.heads][2] = replace(log._streams[NAMES.heads][2], data=mixed)
    error = refused(log, verified(*NAMED))
    assert isinstance(error, EquivocationError)
    assert "two different logs of 3 leaves" in str(error)


def test_a_stream_of_heads_that_was_truncated_behind_the_anchor_is_named() -> None:
    log = first_epochs(story(*NAMED), 3)
    ledger = verified("alice", "bob")
    log.truncate(NAMES.heads, 2)
    error = refused(log, ledger)
    assert isinstance(error, DivergenceError)
    assert "was taken out of it" in str(error)


def test_an_honest_log_that_went_on_is_resumed_and_read_from_the_anchor_on_once() -> None:
    ledger, log = verified(*NAMED), Turning(first_epochs(story(*NAMED, "dave", "erin"), 5))
    report = audit(log, NAMES, ledger, with_queue=False, now=lambda: b.START)  # type: ignore[arg-type]
    assert (report.anchor, report.epochs, report.epoch) == (3, 2, 5)
    assert [call for call in log.read_calls if call[0] == NAMES.heads] == [(NAMES.heads, 2, None)]


def test_nothing_new_is_reported_as_of_its_epoch() -> None:
    report = audit(story(*NAMED).log, NAMES, verified(*NAMED), with_queue=False, now=lambda: b.START)
    assert (report.anchor, report.epochs, report.epoch) == (3, 0, 3)


def test_auditing_nothing_fails_and_names_the_stream() -> None:
    error = refused(MemoryLog(), new_ledger())
    assert error.exit_code == 1
    assert "nothing was audited" in str(error)
    assert "kt_heads-people" in str(error)


# --- who follows: monitor and front end -------------------------------------------------------------


@contextmanager
def monitoring(log: object, data: Path) -> Iterator[Future[None]]:
    stop = threading.Event()
    settings = MonitorSettings(NAMES, b.ORIGIN, b.SIGNER_KEY, "", data)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(serve, settings, stop, connect=lambda: log)  # type: ignore[arg-type, return-value]
        try:
            yield ended
        finally:
            stop.set()


def verifies(
    log: object, data: Path, epoch: int, then: Callable[[], bool] = lambda: False
) -> BaseException | None:
    """Run a monitor until it has verified ``epoch``, do ``then``, and say what ended it, if anything did.

    What ``then`` returns says whether it is to end by itself.
    """
    with capture_logs() as said, monitoring(log, data) as ended:
        wait_until(lambda: any(line.get("epoch") == epoch for line in said) or ended.done(), "it verified")
        if then():
            wait_until(ended.done, "it ended")
    return ended.exception(30)


def evidence_in(data: Path) -> list[Path]:
    return sorted((data / "evidence").glob("*")) if (data / "evidence").is_dir() else []


def test_a_monitor_that_resumes_finds_rollback_and_fork(tmp_path: Path) -> None:
    data = tmp_path / "monitor"
    assert verifies(story(*NAMED).log, data, 3) is None
    with monitoring(first_epochs(story(*NAMED), 2), data) as ended:
        assert isinstance(ended.exception(30), RollbackError)
    assert evidence_in(data) == []
    with monitoring(story(*OTHER).log, data) as ended:
        error = ended.exception(30)
    convicts(error, 3)
    assert isinstance(error, EquivocationError)
    assert evidence_in(data) == [data / "evidence/heads-epoch-3.evidence"] == [error.saved]
    assert evidence_in(data)[0].read_bytes() == error.evidence
    # The log that was verified first is back, as if nothing had been.
    with (
        monitoring(story(*NAMED).log, data) as ended,
        pytest.raises(EquivocationError, match="proven before"),
    ):
        ended.result(30)
    evidence_in(data)[0].unlink()
    assert verifies(story(*NAMED, "dave").log, data, 4) is None


@pytest.mark.parametrize("users", [OTHER, NAMED[:2]])
def test_a_monitor_finds_it_after_a_reconnection(users: tuple[str, ...], tmp_path: Path) -> None:
    log = Turning(first_epochs(story(*NAMED), 3))

    def then() -> bool:
        log.turn(first_epochs(story(*users), len(users)))
        return True

    error = verifies(log, tmp_path / "monitor", 3, then)
    assert isinstance(error, EquivocationError if users is OTHER else RollbackError)


@pytest.mark.parametrize("users", [OTHER[:3], NAMED[:2]])
def test_a_monitor_finds_a_log_that_turned_before_it_subscribed(
    users: tuple[str, ...], tmp_path: Path
) -> None:
    # A gRPC client connects anew by itself: no call fails, and the subscription is to another log.
    class Quiet(Turning):
        def subscribe(self, stream: str, after: int = -1) -> Subscription:
            self.reads = self.subscriptions = first_epochs(story(*users), len(users))
            return super().subscribe(stream, after)

    log = Quiet(first_epochs(story(*NAMED), 3))
    with monitoring(log, tmp_path / "monitor") as ended:
        error = ended.exception(30)
    assert isinstance(error, EquivocationError if users == OTHER[:3] else RollbackError)


def test_a_monitor_finds_it_with_the_next_head(tmp_path: Path) -> None:
    streams = story(*NAMED)
    log = Turning(streams.log)  # type: ignore[arg-type]

    def then() -> bool:
        # What is subscribed to goes on; what is read is another story.
        log.reads = first_epochs(story(*OTHER), 4)
        streams.put_user("dave")
        streams.epoch()
        return True

    convicts(verifies(log, tmp_path / "monitor", 3, then), 3)


def delivered(read: MemoryLog, sent: SignedStreams, epoch: int) -> BaseException:
    ledger = verified("alice", "bob")
    event = next(iter(sent.log.read(NAMES.heads, epoch - 1, 1)))
    with pytest.raises(KtError) as caught:
        Anchor(NAMES, ledger).check_delivered(read, event)
    return caught.value


def test_the_head_that_a_subscription_delivers_is_the_one_in_the_stream() -> None:
    told, other = story(*NAMED), story(*OTHER)
    ledger = verified("alice", "bob")
    log = Turning(first_epochs(told, 3))
    event = next(iter(log.read(NAMES.heads, 2, 1)))
    log.read_calls.clear()
    Anchor(NAMES, ledger).check_delivered(log, event)  # type: ignore[arg-type]
    assert log.read_calls == [(NAMES.heads, 1, 2)]
    convicts(delivered(first_epochs(other, 3), told, 3), 3)
    assert isinstance(delivered(first_epochs(told, 2), told, 3), RollbackError)
    junk = first_epochs(told, 2)
    junk.append(NAMES.heads, 1, [content_event(NAMES.heads, MAP_HEAD, b"junk")])
    assert isinstance(delivered(junk, told, 3), DivergenceError)


READS: list[tuple[str, str, dict[str, object]]] = [
    ("POST", "/v1/lookup", {"label": b.label_of("alice")}),
    ("POST", "/v1/history", {"label": b.label_of("alice"), "profiles": False}),
    ("GET", "/v1/heads/latest", {}),
    ("GET", "/v1/heads/1", {}),
    ("GET", "/v1/consistency?log=heads&from=1&to=2", {}),
    ("GET", "/heads/checkpoint", {}),
    ("GET", "/mutations/checkpoint", {}),
]


def answers(running: Front) -> set[int]:
    return {
        (running.get(path) if method == "GET" else running.post(path, body)).status_code
        for method, path, body in READS
    }


def no_longer_serves(running: Front, reason: str) -> None:
    until(lambda: running.directory.failure is not None)
    assert answers(running) == {503}
    ready = running.get("/readyz")
    assert ready.status_code == 503
    assert reason in ready.json()["detail"]
    assert running.get("/healthz").status_code == 200
    # It stays up until somebody has looked.
    assert running.errors == []


@pytest.mark.parametrize(
    ("users", "reason"),
    [
        (OTHER, "the log holds another signed head of epoch 3"),
        (NAMED[:2], "the log was rolled back"),
    ],
)
def test_a_front_end_that_resumes_answers_503_with_the_reason(users: tuple[str, ...], reason: str) -> None:
    with front(story(*NAMED)) as running:
        assert answers(running) == {200}
        store = running.store
    with capture_logs() as said, front(story(*users), store, wait=False) as running:
        no_longer_serves(running, reason)
    assert [line["log_level"] for line in said if line["event"] == "stopped serving"] == ["error"]


def test_a_running_front_end_answers_503_after_a_rollback() -> None:
    streams = story(*NAMED)
    with front(streams) as running:
        before = streams.log
        streams.log = first_epochs(streams, 2)
        before.away = True  # type: ignore[attr-defined]
        no_longer_serves(running, "the log was rolled back")


# --- signer -----------------------------------------------------------------------------------------


def signer(log: object, ledger: Ledger) -> Signer:
    return Signer(
        log,  # type: ignore[arg-type]
        NAMES,
        ledger,
        KeyRing([b.SIGNER]),
        effects=effects(lambda: log),  # type: ignore[arg-type, return-value]
        limits=lambda: replace(LIMITS, patrol=0.0),
    )


def test_a_signer_that_resumes_finds_rollback_and_fork() -> None:
    with pytest.raises(RollbackError, match="has no head of epoch 3"):
        signer(first_epochs(story(*NAMED), 2), verified(*NAMED)).recover()
    with pytest.raises(EquivocationError) as caught:
        signer(story(*OTHER).log, verified(*NAMED)).recover()
    convicts(caught.value, 3)


def test_a_patrol_that_finds_an_older_head_twice_has_evidence() -> None:
    ledger, log = verified(*NAMED), first_epochs(story(*NAMED), 3)
    log._streams[NAMES.heads][1] = story("alice", "eve").log._streams[NAMES.heads][1]  # type: ignore[attr-defined]
    with pytest.raises(EquivocationError) as caught:
        Patrol(log, NAMES, ledger).step()
    convicts(caught.value, 2)


def test_a_patrol_names_a_rollback() -> None:
    with pytest.raises(RollbackError, match="rolled back"):
        Patrol(first_epochs(story(*NAMED), 2), NAMES, verified(*NAMED)).step()


def ready_to_publish(log: object, ledger: Ledger) -> EpochWork:
    """Epoch 4 with a user of its own, closed and not published."""
    told = story(*NAMED)
    told.put_user("frank")
    told.mark()
    work = EpochWork(log, NAMES, ledger, KeyRing([b.SIGNER]), 1 << 19)  # type: ignore[arg-type]
    for event in told.log.read(NAMES.queue, work.queue_next):
        work.process(event)
    return work


def test_a_signer_that_finds_another_signed_head_in_its_place_has_evidence() -> None:
    log = first_epochs(story(*NAMED), 3)
    work = ready_to_publish(log, verified(*NAMED))
    there = list(story(*NAMED, "dave").log.read(NAMES.heads))[3]
    log.append(NAMES.heads, 2, [content_event(NAMES.heads, there.type, there.data)])
    with pytest.raises(EquivocationError) as caught:
        work.finish()
    convicts(caught.value, 4)


def test_a_signer_signs_nothing_on_top_of_another_head() -> None:
    log = first_epochs(story(*NAMED), 3)
    work = ready_to_publish(log, verified(*NAMED))
    log._streams[NAMES.heads][2] = story(*OTHER).log._streams[NAMES.heads][2]  # type: ignore[attr-defined]
    with pytest.raises(EquivocationError):
        work.finish()
    assert log.last_revision(NAMES.heads) == 2


def test_a_stream_that_lost_events_while_publishing_was_rolled_back() -> None:
    with pytest.raises(RollbackError, match="lost events"):
        publish(MemoryLog(), "s", 3, [NewEvent("T", b"x", content_event("s", "T", b"x").id)])


def test_a_ledger_without_an_epoch_has_no_anchor() -> None:
    Anchor(NAMES, Ledger(MemoryStore(FAMILIES), b.ORIGIN, b.SIGNER_KEY)).check(MemoryLog())
