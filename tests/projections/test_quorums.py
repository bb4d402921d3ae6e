"""A monitor says while no quorum vouches for its log, and convicts when a cosigned log is another one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kt_es.client.elsewhere import Elsewhere
from kt_es.client.vouching import Policies
from kt_es.errors import EquivocationError
from kt_es.formats.policies import Policy
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.replay import Replay
from kt_es.ledger.tables import FAMILIES
from kt_es.process.site import Page
from projections.auditor import Alarm, Notice
from projections.gossip import Gossip
from projections.monitor import MonitorSettings, serve
from projections.quorums import Quorums
from tests import builders as b
from tests.reference.cosigning import CosigningParty
from tests.reference.forks import first_epochs, story
from tests.reference.shown import Shown, published, showing
from tests.reference.signed_streams import SignedStreams
from tests.reference.signing import wait_until

OURS = story("alice", "bob", "carol", "dave")
THEIRS = story("alice", "bob", "mallory", "trent")
ONE, TWO, THREE = (CosigningParty(name) for name in ("one", "two", "three"))
WITNESSES = Policy.parse(
    "".join(f"witness {name} {party.key.vkey}\n" for name, party in (("one", ONE), ("two", TWO)))
    + "group both all one two\nquorum both\n"
)


def cosigned(streams: SignedStreams, epoch: int, *parties: CosigningParty) -> str:
    note = published(streams, epoch)["heads"].decode()
    return note + "".join(party.line(note, b.START // 1000) for party in parties)


def show(shown: Shown, *notes: str) -> None:
    body = json.dumps({"heads": notes, "mutations": []}).encode()
    shown.pages["/v1/cosigned"] = Page(body, "application/json")


class Judged:
    def __init__(self, url: str, epochs: int, policies: Policies) -> None:
        self.told: list[Notice] = []
        self.ledger = Ledger(MemoryStore(FAMILIES), b.ORIGIN, b.SIGNER_KEY)
        self.replay = Replay(OURS.log, OURS.names, self.ledger, lambda _: None).catch_up()
        self.verify(epochs)
        self.place = Elsewhere(url, b.ORIGIN)
        gossip = Gossip([], self.ledger, lambda: b.START)
        self.quorums = Quorums(policies, [self.place], self.ledger, self.told.append, gossip.unproven)

    def verify(self, epochs: int) -> None:
        for _ in range(epochs):
            next(iter(self.replay))

    def look(self) -> list[tuple[bool, str]]:
        """What is told by one more look."""
        told = len(self.told)
        self.quorums.look()
        assert all(notice.alarm is Alarm.QUORUM for notice in self.told)
        return [(notice.raised, notice.sentence) for notice in self.told[told:]]


@contextmanager
def judged(shown: Shown, epochs: int, age: float = 3600) -> Iterator[Judged]:
    with showing(shown) as url:
        made = Judged(url, epochs, Policies(WITNESSES, age=age))
        with closing(made.place):
            yield made


def test_the_alarm_begins_once_and_ends_with_a_quorum() -> None:
    shown = Shown()
    with judged(shown, 3) as one:
        assert one.look() == [(True, "no quorum both of witnesses vouches for this log: only nobody")]
        show(shown, cosigned(OURS, 2, ONE, THREE))
        assert one.look() == []
        show(shown, cosigned(OURS, 2, ONE), cosigned(OURS, 3, TWO))
        assert one.look() == [(False, "a quorum vouches again")]
        # What has vouched once has vouched, also if the place does not answer any more.
        shown.pages["/v1/cosigned"] = Page(b"", status="503 Service Unavailable")
        with capture_logs() as said:
            assert one.look() == []
        assert [line["event"] for line in said] == ["cosigned heads not read"]


def test_a_quorum_that_stays_behind_is_an_alarm() -> None:
    shown = Shown()
    show(shown, cosigned(OURS, 2, ONE, TWO))
    with judged(shown, 2, age=0.0001) as one:
        assert one.look() == []
        one.verify(2)
        ((raised, sentence),) = one.look()
        assert raised
        assert "the quorum both of witnesses vouches up to epoch 2 only" in sentence


def test_what_is_ahead_counts_when_it_is_verified() -> None:
    shown = Shown()
    show(shown, cosigned(OURS, 4, ONE, TWO))
    with judged(shown, 3) as one:
        assert [raised for raised, _ in one.look()] == [True]
        one.verify(1)
        assert [raised for raised, _ in one.look()] == [False]


def test_junk_counts_as_nothing() -> None:
    shown = Shown()
    good = cosigned(OURS, 3, ONE, TWO)
    show(
        shown, "x", good[:-6], good.replace("kt.example.org/people/heads\n", "kt.example.org/else/heads\n", 1)
    )
    with judged(shown, 3) as one:
        assert [raised for raised, _ in one.look()] == [True]
        shown.pages["/v1/cosigned"] = Page(b"<html>")
        assert one.look() == []


def test_a_cosigned_log_that_is_another_one_is_evidence() -> None:
    shown = Shown()
    show(shown, cosigned(THEIRS, 3, ONE))
    with judged(shown, 3) as one, pytest.raises(EquivocationError, match="two different logs of 3 leaves"):
        one.look()


def test_a_running_monitor_shows_the_alarm_and_ends_with_evidence(tmp_path: Path) -> None:
    shown, stop = Shown(), threading.Event()
    shown.show(OURS, 4)
    with showing(shown) as url, capture_logs() as said, ThreadPoolExecutor(1) as pool:
        settings = MonitorSettings(
            *(OURS.names, b.ORIGIN, b.SIGNER_KEY, "", tmp_path),
            also=(url,),
            also_interval=0.05,
            policies=Policies(WITNESSES),
        )
        ended = pool.submit(serve, settings, stop, connect=lambda: first_epochs(OURS, 4))
        try:
            wait_until(lambda: any(line["event"] == "quorum alarm" for line in said), "the alarm is told")
            show(shown, cosigned(OURS, 4, ONE, TWO))
            wait_until(lambda: any(line["event"] == "quorum alarm ends" for line in said), "the alarm ends")
            show(shown, cosigned(THEIRS, 4, ONE))
            with pytest.raises(EquivocationError):
                ended.result(30)
        finally:
            stop.set()
    assert len(list((tmp_path / "evidence").iterdir())) == 1
