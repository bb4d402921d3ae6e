"""The signer as a process: settings that are read again while it runs, and what its page says of outages."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from kt_es.errors import DiskFullError, StoreAwayError, UnavailableError
from kt_es.eventstore.streams import EventLog, StreamNames
from kt_es.ledger import stores
from kt_es.ledger.store import Store
from kt_es.process import outage
from kt_es.process.outage import Outage
from kt_es.process.signals import Reload
from signer import service
from signer.keys import KeyRing
from signer.limits import EpochLimits
from signer.loop import Signer
from signer.metrics import WAITS, SignerMetrics
from signer.service import SignerSettings, _changed_limits, run_forever, serve
from tests import builders as b
from tests.reference.memory_log import MemoryLog, _GroupPlace
from tests.reference.sharing import SharedStreams, ledger_of
from tests.reference.signing import LIMITS, NAMES, decided, effects, new_ledger, new_log, submit


def test_new_limits_are_in_force_at_once_and_other_settings_need_a_restart() -> None:
    started = SignerSettings(
        StreamNames("people"),
        b.ORIGIN,
        b.public(b.SIGNER),
        "esdb://h:1",
        Path("data"),
        Path("keys"),
        EpochLimits(),
    )
    again = replace(started, limits=EpochLimits(batch_limit=7), log="esdb://h:2", data=Path("other"))
    reload = Reload(started, lambda: again, ("limits",), _changed_limits)
    done = reload()
    assert (done.changed, done.needs_restart) == (("batch_limit",), ("log", "data"))
    assert reload.current.limits.batch_limit == 7
    # The second time nothing is new, except for what still needs the restart.
    assert reload().changed == ()


def test_a_signer_asks_for_its_limits_at_each_use() -> None:
    limits = [replace(LIMITS, batch_limit=6)]
    log = new_log(min_interval=300_000, max_interval=600_000)
    outside = effects(lambda: log)
    signer = Signer(log, NAMES, new_ledger(), KeyRing([b.SIGNER]), effects=outside, limits=lambda: limits[0])
    signer.recover()
    # Without any head before it, the epoch with the directory's first config ends at once.
    while decided(log) == 0:
        signer.is_behind = True
        signer.advance()
    submit(log, [b.mutation(f"user{number}") for number in range(5)])
    end = log.last_revision(NAMES.queue)
    signer.is_behind = True
    signer.advance()
    assert log.last_revision(NAMES.queue) == end
    limits[0] = replace(LIMITS, batch_limit=5)
    signer.advance()
    assert log.last_revision(NAMES.queue) == end + 1


def waiting(metrics: SignerMetrics) -> list[str]:
    """What the page of metrics names as the trouble, the full disk by its own figure, too."""
    figure = metrics.registry.get_sample_value
    found = [kind for kind in WAITS if figure("kt_signer_waiting", {"kind": kind}) == 1]
    return [*found, "disk full"] if figure("kt_signer_disk_full") == 1 else found


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (StoreAwayError("no node of the shared store answers"), ["store"]),
        (DiskFullError(Path("data")), ["disk", "disk full"]),
    ],
    ids=["shared store", "full disk"],
)
def test_a_signer_that_cannot_start_distinguishes_a_full_disk_from_a_store_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: UnavailableError, named: list[str]
) -> None:
    stop, pages, opened = threading.Event(), list[SignerMetrics](), list[int]()

    def metrics(now: Callable[[], int], monotonic: Callable[[], float]) -> SignerMetrics:
        pages.append(SignerMetrics(now, monotonic))
        return pages[0]

    def open_store(*_: object, **__: object) -> Store:
        opened.append(1)
        if len(opened) == 3:
            stop.set()
        raise error

    monkeypatch.setattr(outage, "PAUSE", 0.0)
    monkeypatch.setattr(service, "SignerMetrics", metrics)
    monkeypatch.setattr(stores, "open_store", open_store)
    (tmp_path / "signer.pem").write_bytes(b.SIGNER.to_pem())
    (tmp_path / "signer.pem").chmod(0o600)
    settings = SignerSettings(NAMES, b.ORIGIN, b.SIGNER_KEY, "", tmp_path / "data", tmp_path, EpochLimits())
    serve(settings, stop, connect=MemoryLog)
    assert waiting(pages[0]) == named
    # One outage, however many attempts. Kinds without one have a sample: an alarm sees the first outage, too.
    counted = {
        kind: pages[0].registry.get_sample_value("kt_signer_outages_total", {"kind": kind}) for kind in WAITS
    }
    assert counted == {kind: float(kind == named[0]) for kind in WAITS}


class Joined(MemoryLog):
    """A log that sets ``joined`` when a signer joins the group."""

    def __init__(self) -> None:
        super().__init__()
        self.joined = threading.Event()

    def join_group(self, stream: str, group: str) -> _GroupPlace | None:
        self.joined.set()
        return super().join_group(stream, group)


def test_a_running_signer_reports_what_it_waits_for_until_it_works_again() -> None:
    log = Joined()
    streams = SharedStreams(log)
    streams.put_user("alice")
    streams.epoch()
    ledger, stop, said = ledger_of(streams.replicas), log.joined, list[list[str]]()
    outside = effects(lambda: streams.log)
    metrics = SignerMetrics(outside.now, outside.monotonic)
    # One outage after the other: each ends a signer, and the last signer works.
    errors: list[UnavailableError | None] = [DiskFullError(Path("data")), UnavailableError("the log"), None]

    def new_signer(log: EventLog) -> Signer:
        said.append(waiting(metrics))
        streams.replicas.away = len(said) == 1
        if len(said) > 1 and (error := errors.pop(0)) is not None:
            raise error
        return Signer(
            log, NAMES, ledger, KeyRing([b.SIGNER]), effects=outside, limits=lambda: LIMITS, metrics=metrics
        )

    run_forever(
        outside.connect,
        new_signer,
        NAMES.queue,
        stop,
        metrics,
        outage=Outage("signer", structlog.get_logger("signer")),
        passing=ledger.passing,
    )
    assert said == [[], ["store"], ["disk"], ["log"]]
    assert waiting(metrics) == []
    assert ledger.committed.epoch == 1
