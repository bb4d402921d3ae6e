"""A monitor that cosigns: what it has replayed and nothing else, durably before it shows it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from kt_es.client.transport import Transport
from kt_es.errors import ConfigError, EquivocationError, LockedError
from kt_es.evidence import convict
from kt_es.formats.cosignatures import CosignerKey, read_cosigned
from kt_es.formats.evidence import Evidence
from kt_es.formats.heads import heads_origin, mutations_origin, open_checkpoint
from kt_es.formats.witnessing import origin_hash
from kt_es.ledger.ledger import Ledger
from kt_es.server.cosigning import Cosigners
from kt_es.witness.state import opened
from kt_es.witness.witness import Witness
from projections.cosigning.monitoring import CosignerSettings, MonitorCosigner, cosigning
from projections.monitor import MonitorSettings, serve
from projections.monitor_metrics import MonitorMetrics
from projections.status.board import Board, Monitored
from tests import builders as b
from tests.reference.doors import listening
from tests.reference.forks import story
from tests.reference.frontends import Front, front, until
from tests.reference.signed_streams import SignedStreams

NAME = "monitor.example.org"
ORIGINS = {"heads": heads_origin(b.ORIGIN), "mutations": mutations_origin(b.ORIGIN)}
AT = 1_700_000_000


@contextmanager
def cosigner(folder: Path, ledger: Ledger, *directories: Transport) -> Iterator[MonitorCosigner]:
    with opened(folder, NAME) as identity:
        yield MonitorCosigner(Witness(identity, {}, lambda: AT), ledger, directories)


def shown(made: MonitorCosigner, log: str) -> tuple[int, set[str]]:
    """The size of the checkpoint that is shown, and who has cosigned it."""
    page = made.page(log)  # type: ignore[arg-type]
    assert page is not None
    names = read_cosigned(page.body, [CosignerKey.parse(made.vkey)]).names
    return open_checkpoint(page.body, ORIGINS[log], [b.SIGNER.public]).size, set(names)


def rounds(made: MonitorCosigner, log: str, size: int, also: Callable[[], object] = lambda: True) -> None:
    """Run until the checkpoint of this size is shown, and ``also`` is true."""
    stop = threading.Event()
    thread = threading.Thread(target=made.run, args=(stop, 0.01))
    thread.start()
    try:
        until(lambda: made.page(log) is not None and shown(made, log)[0] == size and also())  # type: ignore[arg-type]
    finally:
        stop.set()
        thread.join()


def test_what_is_verified_is_cosigned_stored_and_shown(tmp_path: Path) -> None:
    streams = SignedStreams()
    with cosigner(tmp_path, streams.ledger) as made:
        assert made.page("heads") is None
        streams.put_user("alice")
        for epoch in (1, 2):
            head = streams.epoch()
            rounds(made, "mutations", head.log_size)
            assert shown(made, "heads") == (epoch, {NAME})
            assert shown(made, "mutations") == (head.log_size, {NAME})
            for log, origin in ORIGINS.items():
                page = made.page(log)  # type: ignore[arg-type]
                assert page is not None
                assert (tmp_path / "logs" / origin_hash(origin)).read_bytes() == page.body


def test_nothing_is_cosigned_before_the_replay_is_where_it_was(tmp_path: Path) -> None:
    users = ("alice", "bob", "carol")
    with cosigner(tmp_path, story(*users).ledger) as made:
        rounds(made, "heads", 3)
    behind = story(*users[:2])
    with cosigner(tmp_path, behind.ledger) as made:
        stop = threading.Event()
        thread = threading.Thread(target=made.run, args=(stop, 0.01))
        thread.start()
        assert shown(made, "heads") == (3, {NAME})
        for user in ("carol", "dave"):
            behind.put_user(user)
            behind.epoch()
        try:
            until(lambda: shown(made, "heads") == (4, {NAME}))
        finally:
            stop.set()
            thread.join()


class Once(threading.Event):
    """Is set at the end of the first round."""

    def wait(self, timeout: float | None = None) -> bool:
        self.set()
        return True


def test_nothing_is_cosigned_before_the_pinned_key_is_in_the_chain(tmp_path: Path) -> None:
    store = story("alice").ledger.store
    with cosigner(tmp_path, Ledger(store, b.ORIGIN, b.public(b.private_key("eve")))) as made:
        made.run(Once(), 60.0)
        assert made.page("heads") is None
        assert made.page("mutations") is None
    with cosigner(tmp_path, Ledger(store, b.ORIGIN, b.SIGNER_KEY)) as made:
        made.run(Once(), 60.0)
        assert shown(made, "heads") == (1, {NAME})


@pytest.mark.parametrize("users", [("alice", "dave"), ("alice", "dave", "erin")])
def test_another_history_than_was_cosigned_is_evidence(tmp_path: Path, users: tuple[str, ...]) -> None:
    with cosigner(tmp_path, story("alice", "bob").ledger) as made:
        rounds(made, "heads", 2)
    with cosigner(tmp_path, story(*users).ledger) as made:
        with pytest.raises(EquivocationError) as caught:
            made.run(threading.Event(), 60.0)
        assert shown(made, "heads") == (2, {NAME})
    assert caught.value.evidence is not None
    assert convict(Evidence.decode(caught.value.evidence))


def test_an_error_ends_the_monitor(tmp_path: Path) -> None:
    with cosigner(tmp_path, story("alice", "bob").ledger) as made:
        rounds(made, "heads", 2)
    ending = threading.Event()
    settings = CosignerSettings(tmp_path)
    ledger = story("alice", "dave").ledger
    with pytest.raises(EquivocationError), cosigning(settings, ledger, ending, lambda _: None):
        assert ending.wait(30)


def test_a_folder_that_cannot_be_used_is_refused_at_the_start(tmp_path: Path) -> None:
    ledger, ending = story("alice").ledger, threading.Event()
    with (
        pytest.raises(ConfigError, match="needs --cosigner-name"),
        cosigning(CosignerSettings(tmp_path), ledger, ending, lambda _: None),
    ):
        pass
    with (
        opened(tmp_path, NAME),
        pytest.raises(LockedError),
        cosigning(CosignerSettings(tmp_path), ledger, ending, lambda _: None),
    ):
        pass
    with cosigning(None, ledger, ending, lambda _: None):
        assert not ending.is_set()


def test_it_is_handed_to_a_directory_that_knows_the_key(tmp_path: Path) -> None:
    streams = story("alice", "bob")
    with opened(tmp_path, NAME) as identity:
        key = identity.public
    known = Front(streams, cosigners=Cosigners((), (key,)))
    stranger = Front(streams)
    with (
        front(streams, made=known),
        front(streams, made=stranger),
        listening(known.running) as port,
        listening(stranger.running) as other,
        closing(Transport(f"http://127.0.0.1:{port}")) as first,
        closing(Transport(f"http://127.0.0.1:{other}")) as second,
        capture_logs() as said,
        cosigner(tmp_path, streams.ledger, first, second) as made,
    ):
        size = streams.ledger.committed.log.size
        rounds(made, "mutations", size, lambda: len(known.get("/v1/cosigned").json()["mutations"]) == 1)
        (note,) = known.get("/v1/cosigned").json()["heads"]
        assert read_cosigned(note, [key]).names == {NAME: AT}
    complaints = [line for line in said if line["event"] == "not handed over"]
    assert [line["to"] for line in complaints] == [f"http://127.0.0.1:{other}"]
    assert "no cosignature by a key that this directory knows" in complaints[0]["problem"]


def test_a_front_end_of_another_history_ends_the_monitor_with_evidence(tmp_path: Path) -> None:
    """It is found before the hand-over, after which that front end shows no checkpoint any more."""
    ours, theirs = story("alice", "bob", "carol"), story("alice", "mallory", "trent")
    with opened(tmp_path / "c", NAME) as identity:
        key = identity.public
    made = Front(theirs, cosigners=Cosigners((), (key,)))
    with front(theirs, made=made), listening(made.running) as port:
        url = f"http://127.0.0.1:{port}"
        settings = MonitorSettings(
            ours.names,
            b.ORIGIN,
            b.SIGNER_KEY,
            "",
            tmp_path / "m",
            cosigner=CosignerSettings(tmp_path / "c", interval=0.01, publish=(url,)),
        )
        with pytest.raises(EquivocationError, match="two different") as caught:
            serve(settings, threading.Event(), connect=lambda: ours.log)
    assert caught.value.saved is not None
    assert convict(Evidence.decode(caught.value.saved.read_bytes()))


def test_the_page_and_the_metrics_say_what_is_cosigned_and_who_takes_it(tmp_path: Path) -> None:
    streams = story("alice", "bob")
    ledger, metrics = streams.ledger, MonitorMetrics(lambda: b.START, lambda: 0.0)
    stranger = Front(streams)
    with (
        front(streams, made=stranger),
        listening(stranger.running) as port,
        closing(Transport(f"http://127.0.0.1:{port}")) as directory,
        opened(tmp_path, NAME) as identity,
    ):
        made = MonitorCosigner(Witness(identity, {}, lambda: AT), ledger, [directory], metrics=metrics)
        board = Board(
            Monitored(b.ORIGIN, b.SIGNER_KEY, "its event log", tmp_path, with_queue=False), metrics, lambda: 0
        )
        board.show(made)
        value = metrics.registry.get_sample_value
        place = {"place": directory.base_url}
        assert value("kt_monitor_not_handed_over_total", place) == 0
        refused = partial(value, "kt_monitor_not_handed_over_total", place)
        rounds(made, "mutations", ledger.committed.log.size, refused)
        assert value("kt_monitor_cosigned_size", {"log": "heads"}) == 2
        assert value("kt_monitor_cosigned_timestamp_seconds", {"log": "mutations"})
        with httpx.Client(transport=httpx.WSGITransport(board.app()), base_url="http://kt.test") as client:
            text = client.get("/").text
    assert "Cosigned by this monitor" in text
    assert "<dt>Log of heads</dt><dd>2 leaves at " in text
    assert "not taken yet; not handed over now: unauthorized: has no cosignature" in text
