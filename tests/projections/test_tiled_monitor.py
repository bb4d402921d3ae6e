"""A monitor that has nothing but a URL follows, outlives its server, and finds every lie."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from kt_es.errors import CannotTellError, ConfigError, DivergenceError, EquivocationError, RollbackError
from kt_es.evidence import convict
from kt_es.formats.evidence import Evidence
from kt_es.ledger.clock import SLACK
from kt_es.ledger.rows import Committed
from projections.monitor import MonitorSettings, serve
from projections.monitor_metrics import MonitorMetrics
from projections.monitor_sources import TileAddress, TileSource
from projections.tiles.following import look_interval
from tests import builders as b
from tests.projections.test_monitor_clock import at
from tests.reference.clocks import Clock
from tests.reference.forks import first_epochs, story
from tests.reference.shown import published
from tests.reference.signed_streams import SignedStreams
from tests.reference.signing import NAMES, wait_until
from tests.reference.static_servers import web_server
from tests.reference.tile_folders import FolderTiles, exported

NAMED = ("alice", "bob", "carol")
OTHER = ("alice", "bob", "eve", "dave")


class Site:
    """A web server whose content a test replaces. It has nothing at first."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._link = base / "site"
        self._count = 0

    def show(self, streams: SignedStreams, epochs: int | None = None) -> None:
        """Show other files at once."""
        self._count += 1
        log = streams.log if epochs is None else first_epochs(streams, epochs)
        self._turn(exported(self._base / str(self._count), log))

    def go_away(self) -> None:
        self._turn(self._base / "nothing")

    def _turn(self, target: Path) -> None:
        fresh = self._base / "fresh"
        fresh.symlink_to(target)
        fresh.replace(self._link)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Site, str]]:
    base = tmp_path / "www"
    base.mkdir()
    with web_server(base) as url:
        yield Site(base), f"{url}/site"


@contextmanager
def monitoring(url: str, data: Path, clock: Clock | None = None, **more: Any) -> Iterator[Future[None]]:
    stop = threading.Event()
    tiles = TileAddress(url, interval=0.01)
    settings = MonitorSettings(NAMES, b.ORIGIN, b.SIGNER_KEY, "", data, tiles=tiles, **more)
    now = clock or Clock(b.START / 1000)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(serve, settings, stop, now=lambda: int(now() * 1000), monotonic=now)
        try:
            yield ended
        finally:
            stop.set()


@contextmanager
def following(url: str, data: Path, clock: Clock | None = None) -> Iterator[Callable[..., None]]:
    """A monitor that must not end. Yields a wait for a line of its log with one value."""
    with capture_logs() as said, monitoring(url, data, clock) as ended:

        def wait(event: str, epoch: object = None) -> None:
            def is_there() -> bool:
                if ended.done():
                    ended.result()
                return any(line["event"] == event and line.get("epoch") == epoch for line in list(said))

            wait_until(is_there, f"{event} {epoch}")

        yield wait
    assert ended.exception(30) is None


def test_the_data_of_another_directory_is_a_usage_error_and_no_alarm(
    site: tuple[Site, str], tmp_path: Path
) -> None:
    (shown, url), data = site, tmp_path / "data"
    shown.show(story(*NAMED))
    with following(url, data) as wait:
        wait("verified", 3)
    settings = MonitorSettings(
        NAMES, b.OTHER_ORIGIN, b.SIGNER_KEY, "", data, metrics=("127.0.0.1", 0), tiles=TileAddress(url)
    )
    with capture_logs() as said, pytest.raises(ConfigError, match="name another data directory, with --data"):
        serve(settings, threading.Event())
    assert "alarm" not in [line["event"] for line in said]


def test_it_follows_from_nothing_and_from_its_own_state(site: tuple[Site, str], tmp_path: Path) -> None:
    (shown, url), streams = site, story(*NAMED)
    shown.show(streams)
    with following(url, tmp_path / "data") as wait:
        wait("verified", 3)
        streams.put_user("dave")
        streams.epoch()
        shown.show(streams)
        wait("verified", 4)
    streams.put_user("erin")
    streams.epoch()
    shown.show(streams)
    with following(url, tmp_path / "data") as wait:
        wait("verified", 5)


def test_it_outlives_an_outage_and_a_server_that_is_behind(site: tuple[Site, str], tmp_path: Path) -> None:
    (shown, url), streams = site, story(*NAMED, "dave")
    with following(url, tmp_path / "data") as wait:
        wait("the server cannot be reached")
        shown.show(streams, 2)
        wait("verified", 2)
        wait("the server can be reached again")
        shown.show(streams, 3)
        wait("verified", 3)
        shown.show(streams, 1)
        shown.go_away()
        shown.show(streams, 4)
        wait("verified", 4)


def test_it_finds_forks_and_has_the_evidence(site: tuple[Site, str], tmp_path: Path) -> None:
    (shown, url), data = site, tmp_path / "data"
    shown.show(story(*NAMED))
    with capture_logs() as said, monitoring(url, data) as ended:
        wait_until(lambda: any(line.get("epoch") == 3 for line in list(said)) or ended.done(), "epoch 3")
        shown.show(story(*OTHER))
        error = ended.exception(30)
    assert isinstance(error, EquivocationError)
    assert error.saved == data / "evidence/heads-epoch-3.evidence"
    kept = error.saved.read_bytes()
    assert convict(Evidence.decode(kept)) == "the directory signed two different heads of epoch 3"
    # The log that was verified first is back, as if nothing had been.
    shown.show(story(*NAMED))
    with monitoring(url, data) as ended:
        assert "proven before" in str(ended.exception(30))


def test_half_of_a_proof_that_its_own_server_shows_is_kept(site: tuple[Site, str], tmp_path: Path) -> None:
    (shown, url), data = site, tmp_path / "data"
    shown.show(story(*NAMED))
    with following(url, data) as wait:
        wait("verified", 3)
    theirs = story("alice", "eve")
    shown.show(theirs)
    for path in (tmp_path / "www/2/heads/tile").rglob("000.p/*"):
        path.unlink()
    for _ in range(2):
        # The file alone raises it again, when the server shows the log that was verified first.
        with monitoring(url, data) as ended:
            error = ended.exception(30)
        assert isinstance(error, DivergenceError)
        assert "another log of" in str(error)
        assert "each start compares it again" in str(error)
        shown.show(story(*NAMED))
    (kept,) = (data / "unproven").iterdir()
    assert kept.read_bytes() == published(theirs, 2)["heads"]


def test_a_server_that_stays_behind_was_rolled_back(site: tuple[Site, str], tmp_path: Path) -> None:
    (shown, url), clock = site, Clock(b.START / 1000)
    shown.show(story(*NAMED))
    with capture_logs() as said, monitoring(url, tmp_path / "data", clock) as ended:
        wait_until(lambda: any(line.get("epoch") == 3 for line in list(said)), "epoch 3")
        shown.show(story(*NAMED), 2)
        wait_until(lambda: any("may be behind" in str(line.get("problem")) for line in list(said)), "behind")
        clock.now += 1e6
        error = ended.exception(30)
    assert isinstance(error, RollbackError)


def test_wrong_files_end_it(site: tuple[Site, str], tmp_path: Path) -> None:
    shown, url = site
    shown.show(story(*NAMED))
    for path in (tmp_path / "www/1/mutations/tile/entries/000.p").iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    with monitoring(url, tmp_path / "data") as ended:
        error = ended.exception(30)
    assert isinstance(error, DivergenceError)
    assert "log of mutations: the tiles at" in str(error)


def test_silence_is_noticed(site: tuple[Site, str], tmp_path: Path) -> None:
    (shown, url), clock = site, Clock(b.START / 1000)
    shown.show(story(*NAMED))
    with capture_logs() as said, monitoring(url, tmp_path / "data", clock, exit_on_silence=True) as ended:
        wait_until(lambda: any(line.get("epoch") == 3 for line in list(said)), "epoch 3")
        clock.now += 1e6
        error = ended.exception(30)
    assert isinstance(error, CannotTellError)
    assert "no head since epoch 3" in str(error)


def test_the_queue_is_not_public(tmp_path: Path) -> None:
    with monitoring("http://127.0.0.1:9", tmp_path / "data", read_queue=True) as ended:
        error = ended.exception(30)
    assert isinstance(error, ConfigError)
    assert "the queue is not public" in str(error)


def test_metrics_say_what_the_server_shows(tmp_path: Path) -> None:
    tiles = FolderTiles(exported(tmp_path, story(*NAMED).log))
    metrics = MonitorMetrics(lambda: b.START, lambda: 0.0)
    with TileSource(lambda: tiles, None).looking() as look:
        look(metrics)
        assert metrics.registry.get_sample_value("kt_monitor_lag_heads") == 3
        assert metrics.registry.get_sample_value("kt_monitor_lag_records") == 7
        # What is no checkpoint says nothing; the replay reports it.
        tiles.change = lambda _, __: b"<html>"
        look(metrics)
        assert metrics.registry.get_sample_value("kt_monitor_lag_heads") == 0


@pytest.mark.parametrize(("max_interval", "seconds"), [(1_000, 1.0), (10_000, 5.0), (600_000, 30.0)])
def test_looks_are_as_frequent_as_heads(max_interval: int, seconds: float) -> None:
    committed: Committed = at(1, 0, max_interval)
    assert look_interval(committed) == seconds
    # A head is never found so late that it looks like silence.
    assert seconds * 1000 < SLACK
