"""An outage of the shared store counts once, from its first error until what failed has succeeded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from kt_es.errors import KtError, StoreAwayError, UnavailableError, UnverifiedRowError
from kt_es.eventstore.streams import EventLog
from kt_es.ledger.ledger import Ledger
from kt_es.process.outage import Backoff, Outage
from signer import service
from signer.keys import KeyRing
from signer.loop import Signer
from signer.metrics import SignerMetrics
from signer.outages import PATROLS, LoopOutages, Step
from signer.service import run_forever
from tests import builders as b
from tests.reference.frontends import until
from tests.reference.sharing import SharedStreams, ledger_of
from tests.reference.signing import LIMITS, NAMES, PATIENCE, effects

WRONG = "rows of the shared store are missing or wrong"
RIGHT = "the rows of the shared store are right again"
AWAY = "the shared store cannot be used"
BACK = "the shared store can be used again"


@pytest.fixture
def streams() -> SharedStreams:
    streams = SharedStreams()
    streams.put_user("alice")
    streams.epoch()
    streams.epoch()
    return streams


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "Backoff", lambda: Backoff(0.005, 0.01))
    monkeypatch.setattr(service, "STANDBY", 0.005)


class Running:
    """A signer whose loop begins anew after outages; ``began`` counts its loops."""

    def __init__(self, streams: SharedStreams) -> None:
        self.ledger: Ledger = ledger_of(streams.replicas)
        self.began = 0
        self._outside = effects(lambda: streams.log)
        self._metrics = SignerMetrics(self._outside.now, self._outside.monotonic)

    def value(self, name: str, **labels: str) -> float | None:
        return self._metrics.registry.get_sample_value(f"kt_signer_{name}", labels)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        stop = threading.Event()
        limits = replace(LIMITS, patrol=0.0, watchdog=60.0)

        def signer(log: EventLog) -> Signer:
            self.began += 1
            self.ledger.resume()
            keys = KeyRing([b.SIGNER])
            outside = {"effects": self._outside, "limits": lambda: limits, "metrics": self._metrics}
            return Signer(log, NAMES, self.ledger, keys, **outside)  # type: ignore[arg-type]

        outage = Outage("signer", structlog.get_logger("signer"), on_begin=self._metrics.outage)
        thread = threading.Thread(
            target=run_forever,
            args=(self._outside.connect, signer, NAMES.queue, stop, self._metrics),
            kwargs={"outage": outage, "passing": self.ledger.passing},
        )
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(PATIENCE)
            assert not thread.is_alive()


def events(said: list[Any]) -> list[str]:
    wanted = {"active", "standby", WRONG, RIGHT, AWAY, BACK}
    return [line["event"] for line in said if line["event"] in wanted]


def test_wrong_rows_that_the_patrol_meets_are_one_outage_until_they_are_right(streams: SharedStreams) -> None:
    good = streams.replicas.rows("heads")
    running = Running(streams)
    with capture_logs() as said, running():
        until(lambda: events(said) == ["active"])
        streams.replicas.majority.write([("heads", key, row[::-1]) for key, row in good.items()])
        began = running.began
        until(lambda: running.began >= began + 5)
        assert events(said) == ["active", WRONG]
        assert running.value("outages_total", kind="store") == 1
        until(lambda: running.value("waiting", kind="store") == 1)
        streams.replicas.majority.write([("heads", key, row) for key, row in good.items()])
        until(lambda: events(said) == ["active", WRONG, RIGHT])
        until(lambda: running.value("waiting", kind="store") == 0)
        assert running.value("outages_total", kind="store") == 1
    (line,) = (line for line in said if line["event"] == WRONG)
    assert "has a wrong head of epoch 1: `kt store rebuild` fills it from the log" in line["problem"]
    assert "mend" in line


def test_a_store_that_goes_and_returns_is_one_outage(streams: SharedStreams) -> None:
    running = Running(streams)
    with capture_logs() as said, running():
        until(lambda: events(said) == ["active"])
        streams.replicas.away = True
        until(lambda: running.began >= 5)
        assert events(said) == ["active", AWAY]
        assert running.value("waiting", kind="store") == 1
        streams.replicas.away = False
        until(lambda: events(said)[2:] == [BACK, "active"] or events(said)[2:] == [BACK])
        until(lambda: running.value("waiting", kind="store") == 0)
    assert running.value("outages_total", kind="store") == 1


@pytest.fixture
def metrics() -> SignerMetrics:
    return SignerMetrics(lambda: b.START, lambda: 0.0)


def waits(metrics: SignerMetrics, kind: str) -> bool:
    return metrics.registry.get_sample_value("kt_signer_waiting", {"kind": kind}) == 1


@pytest.mark.parametrize(
    ("error", "patrols"), [(StoreAwayError("no node"), 1), (UnverifiedRowError("a page is missing"), PATROLS)]
)
def test_a_step_that_failed_because_of_the_store_has_to_succeed(
    metrics: SignerMetrics, error: KtError, patrols: int
) -> None:
    with capture_logs() as said:
        outage = Outage("signer", structlog.get_logger())
        outages = LoopOutages(outage, metrics)
        for step in (Step.PATROL, Step.EPOCH):
            outages.failed(error, step)
            outage.failed(error)
        outages.reached()
        outages.succeeded({Step.START: 1})
        assert waits(metrics, "store")
        outages.succeeded({Step.PATROL: patrols - 1, Step.EPOCH: 1})
        # It builds epochs, although the patrol has not found the row right yet.
        assert not waits(metrics, "store")
        assert events(said)[1:] == []
        outages.succeeded({Step.PATROL: patrols})
    assert len(events(said)) == 2
    assert not waits(metrics, "store")


def test_a_signer_waits_no_more_once_the_log_answers_it(metrics: SignerMetrics) -> None:
    outages = LoopOutages(Outage("signer", structlog.get_logger()), metrics)
    outages.failed(UnavailableError("no log"), Step.START)
    assert waits(metrics, "log")
    # A replay may follow, and take an hour.
    outages.reached()
    assert not waits(metrics, "log")


def test_an_outage_of_the_log_ends_when_the_group_is_joined_also_while_rows_are_wrong(
    metrics: SignerMetrics,
) -> None:
    with capture_logs() as said:
        outage = Outage("signer", structlog.get_logger())
        outages = LoopOutages(outage, metrics)
        for error in (UnverifiedRowError("a page is missing"), UnavailableError("no log")):
            outages.failed(error, Step.EPOCH)
            outage.failed(error)
        assert waits(metrics, "log")
        outages.succeeded({Step.START: 1})
        assert waits(metrics, "store")
    assert said[-1]["event"] == "the event log can be reached again"


def test_a_standby_waits_for_no_epoch_of_its_own_and_says_its_role_once(streams: SharedStreams) -> None:
    """After an outage another signer may have the place: this one is well when it can follow."""
    running = Running(streams)
    with capture_logs() as said, running():
        until(lambda: events(said) == ["active"])
        streams.replicas.away = True
        until(lambda: events(said) == ["active", AWAY])
        other = streams.log.join_group(NAMES.queue, service.GROUP)
        assert other is not None
        streams.replicas.away = False
        until(lambda: events(said) in (["active", AWAY, BACK, "standby"], ["active", AWAY, "standby", BACK]))
        until(lambda: running.value("waiting", kind="store") == 0)
        other.stop()
