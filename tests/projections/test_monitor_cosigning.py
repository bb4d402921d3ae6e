"""A monitor that cosigns: what it has replayed and nothing else, durably before it shows it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

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


def rounds(made: MonitorCosigner, log: str, size: int) -> None:
    """Run until the checkpoint of this size is shown."""
    stop = threading.Event()
    thread = threading.Thread(target=made.run, args=(stop, 0.01))
    thread.start()
    try:
        until(lambda: made.page(log) is not None and shown(made, log)[0] == size)  # type: ignore[arg-type]
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
        pytest.raises(ConfigError, match="needs --name"),
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
        rounds(made, "mutations", streams.ledger.committed.log.size)
        until(lambda: len(known.get("/v1/cosigned").json()["mutations"]) == 1)
        (note,) = known.get("/v1/cosigned").json()["heads"]
        assert read_cosigned(note, [key]).names == {NAME: AT}
    complaints = [line for line in said if line["event"] == "not handed over"]
    assert [line["to"] for line in complaints] == [f"http://127.0.0.1:{other}"]
    assert "no cosignature by a key that this directory knows" in complaints[0]["problem"]
