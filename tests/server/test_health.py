"""What /readyz and the metrics of a front end say of its log, its signer and its own replica."""

from __future__ import annotations

import time

import httpx

from kt_es.ledger.clock import SLACK
from kt_es.process.outage import Lasting
from kt_es.server.health import NotReadyReason
from tests import builders as b
from tests.reference.frontends import Front, front, until
from tests.reference.signed_streams import SignedStreams

TOO_LATE = b.config().max_interval + SLACK + 1


def metrics(running: Front) -> dict[str, float]:
    lines = running.get("/metrics").text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def reasons_in_metrics(running: Front) -> set[str]:
    found = metrics(running)
    known = {reason: found[f'kt_not_ready{{reason="{reason}"}}'] for reason in NotReadyReason}
    assert set(known.values()) <= {0.0, 1.0}
    return {str(reason) for reason, value in known.items() if value}


def check_not_ready(running: Front, *reasons: str) -> httpx.Response:
    answer = running.get("/readyz")
    document = answer.json()
    assert (answer.status_code, document["reason"]) == (503, "not-ready")
    assert document["reasons"] == list(reasons)
    assert len(document["problems"]) == len(reasons)
    assert reasons_in_metrics(running) == set(reasons)
    assert "kt_" not in answer.text
    return answer


def check_ready(running: Front) -> None:
    assert running.get("/readyz").json() == {"status": "ready"}
    assert reasons_in_metrics(running) == set()


def test_a_dead_signer_is_reported_until_a_head_comes(running: Front, streams: SignedStreams) -> None:
    check_ready(running)
    running.later = TOO_LATE - 1
    check_ready(running)
    running.later = TOO_LATE
    running.running.watch.probe()
    answer = check_not_ready(running, "silence")
    assert "no head since epoch 1: silence for" in answer.json()["detail"]
    assert metrics(running)["kt_head_age_seconds"] == TOO_LATE / 1000
    # Lookups go on: whoever asks sees the age of the head.
    assert running.post("/v1/lookup", {"label": b.label_of("alice")}).status_code == 200
    running.later = 0
    streams.epoch()
    until(running.caught_up)
    check_ready(running)


def test_an_old_head_of_a_front_end_that_is_behind_is_not_the_signers_fault(
    running: Front, streams: SignedStreams
) -> None:
    running.running.replica.stop()
    running.running.replica.worker.join(10)
    streams.epoch()
    running.later = TOO_LATE
    running.running.watch.probe()
    answer = check_not_ready(running, "behind")
    assert "the head of epoch 1 is" in answer.json()["detail"]
    assert "and there are 2" in answer.json()["detail"]


def test_a_new_problem_with_rows_does_not_hide_an_old_one(running: Front) -> None:
    health, now = running.running.health, time.monotonic()
    health.stuck = lambda: Lasting("the state of epoch 2 is missing", now - 300)
    assert "no epoch after 1 is taken for 5 min" in check_not_ready(running, "store-rows").text
    health.store.rows = Lasting("a sample is wrong", now)
    assert "no epoch after 1 is taken for 5 min" in check_not_ready(running, "store-rows").text


def test_a_head_from_the_future_is_reported(running: Front) -> None:
    running.later = -SLACK
    check_ready(running)
    running.later = -SLACK - 1
    answer = check_not_ready(running, "future-head")
    assert "later than this machine's clock" in answer.json()["detail"]
    assert metrics(running)["kt_head_age_seconds"] < 0


def test_a_log_that_went_back_is_reported(streams: SignedStreams) -> None:
    streams.epoch()
    with front(streams) as running:
        pass
    older = SignedStreams()
    older.put_user("alice")
    older.epoch()
    again = Front(streams, running.store, connect=lambda: older.log)
    with front(older, made=again, wait=False) as rolled:
        until(lambda: rolled.directory.failure is not None and rolled.running.watch.problem is None)
        answer = check_not_ready(rolled, "rollback")
        assert "the log was rolled back" in answer.json()["detail"]
        assert rolled.post("/v1/lookup", {"label": b.label_of("alice")}).status_code == 503


def test_equivocation_is_reported(streams: SignedStreams) -> None:
    with front(streams) as running:
        pass
    other = SignedStreams()
    other.put_user("bob")
    other.epoch()
    again = Front(streams, running.store, connect=lambda: other.log)
    with front(other, made=again, wait=False) as convicted:
        until(lambda: convicted.directory.failure is not None and convicted.running.watch.problem is None)
        check_not_ready(convicted, "equivocation")
        # It stays up to say so.
        assert convicted.errors == []


def test_before_its_first_epoch_and_without_the_log_a_front_end_is_not_ready() -> None:
    streams = SignedStreams()
    with front(streams, wait=False) as running:
        until(lambda: running.running.watch.problem is None)
        check_not_ready(running, "no-epoch")
        streams.log.away = True  # type: ignore[attr-defined]
        running.running.watch.probe()
        check_not_ready(running, "no-epoch", "log-away")
        streams.log.away = False  # type: ignore[attr-defined]
