"""A monitor compares with others: agreement, heads that are ahead, contradictions, and places that fail."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kt_es.client.elsewhere import Elsewhere
from kt_es.client.trusted import Pinned
from kt_es.config.settings import load_settings
from kt_es.errors import ConfigError, EquivocationError, UnavailableError
from kt_es.evidence import convict
from kt_es.formats.evidence import Evidence
from kt_es.formats.heads import MAX_CHECKPOINT, heads_origin
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.replay import Replay
from kt_es.ledger.tables import FAMILIES
from kt_es.process.site import Page
from projections.gossip import INTERVAL, Gossip, compare_once
from projections.monitor import MonitorSettings, serve
from projections.monitor_metrics import MonitorMetrics
from tests import builders as b
from tests.reference.forks import first_epochs, story
from tests.reference.shown import Hook, Shown, hooked, published, showing

OURS = story("alice", "bob", "carol", "dave")
THEIRS = story("alice", "bob", "mallory", "trent")


class Compared:
    """A ledger that has replayed ``epochs``, and gossip with one place over clocks of the test."""

    def __init__(self, url: str, epochs: int, timeout: float = 10.0) -> None:
        self.seconds = 0.0
        self.ledger = Ledger(MemoryStore(FAMILIES), b.ORIGIN, b.SIGNER_KEY)
        self.replay = Replay(OURS.log, OURS.names, self.ledger, lambda _: None).catch_up()
        self.verify(epochs)
        self.place = Elsewhere(url, b.ORIGIN, timeout=timeout)
        self.gossip = Gossip([self.place], self.ledger, lambda: b.START, lambda: self.seconds)

    def verify(self, epochs: int) -> None:
        for _ in range(epochs):
            next(iter(self.replay))

    def found(self) -> tuple[int | None, int, int, str]:
        (one,) = self.gossip.neighbours
        return one.agreed, one.heads, one.ahead, one.problem


@contextmanager
def compared(shown: Shown, epochs: int, timeout: float = 10.0) -> Iterator[Compared]:
    with showing(shown) as url:
        made = Compared(url, epochs, timeout)
        with closing(made.place):
            yield made


def test_the_same_log_agrees_at_any_size() -> None:
    shown = Shown()
    with compared(shown, 3) as two:
        for epoch in (1, 3, 2):
            shown.show(OURS, epoch)
            two.gossip.ask()
            assert two.found() == (b.START, epoch, 0, "")


def test_the_time_of_each_agreement_is_a_metric() -> None:
    shown, metrics = Shown(), MonitorMetrics(lambda: b.START, lambda: 0.0)
    with compared(shown, 3) as two:
        gossip = Gossip([two.place], two.ledger, lambda: 7_000, agreed=metrics.compared)
        name, place = "kt_monitor_compared_timestamp_seconds", {"place": two.place.url}
        gossip.ask()
        assert metrics.registry.get_sample_value(name, place) is None
        shown.show(OURS, 3)
        gossip.ask()
        assert metrics.registry.get_sample_value(name, place) == 7


def test_what_is_ahead_is_compared_as_soon_as_it_is_verified_here() -> None:
    shown = Shown()
    with compared(shown, 2) as two:
        shown.show(OURS, 3)
        two.gossip.ask()
        assert two.found() == (None, 0, 1, "")
        # Others follow, and the first one still waits.
        shown.show(OURS, 4)
        two.gossip.ask()
        two.verify(1)
        two.gossip.settle()
        assert two.found() == (b.START, 3, 0, "")


def test_a_contradiction_that_was_ahead_is_found_though_later_ones_agree() -> None:
    shown = Shown()
    with compared(shown, 2) as two:
        shown.show(THEIRS, 3)
        two.gossip.ask()
        shown.show(OURS, 4)
        two.gossip.ask()
        two.verify(1)
        with pytest.raises(EquivocationError, match="two different logs of 3 leaves") as caught:
            two.gossip.settle()
        assert caught.value.evidence is not None
        convict(Evidence.decode(caught.value.evidence))


def test_heads_that_stay_ahead_are_reported() -> None:
    shown = Shown()
    with compared(shown, 2) as two, capture_logs() as said:
        shown.show(OURS, 3)
        two.gossip.ask()
        two.seconds = 120
        two.gossip.ask()
        assert two.found()[3] == ""
        two.seconds = 121
        two.gossip.ask()
        assert "were not published to this monitor" in two.found()[3]
        assert [line["event"] for line in said] == ["not compared"]
        two.verify(1)
        two.gossip.settle()
        assert two.found() == (b.START, 3, 0, "")


def test_a_witness_shows_checkpoints_under_the_hash_of_their_origin() -> None:
    name = sha256(heads_origin(b.ORIGIN).encode()).hexdigest()
    shown = Shown({f"/{name}/checkpoint": Page(published(THEIRS, 3)["heads"])})
    with compared(shown, 3) as two, pytest.raises(EquivocationError):
        two.gossip.ask()


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        (None, "shows no checkpoint of this directory"),
        (Page(b"<html>"), "note: has no signatures"),
        (Page(bytes(MAX_CHECKPOINT + 1)), f"is larger than {MAX_CHECKPOINT} bytes"),
        (Page(b"", status="302 Found", headers={"Location": "http://127.0.0.1:1/"}), "has the status 302"),
        (Page(b"", status="503 Service Unavailable"), "is unavailable"),
        (Page(b"", status="500 Internal Server Error"), "failed with status 500"),
        (Page(published(OURS, 1)["mutations"]), "checkpoint: no signature is by a known key"),
    ],
)
def test_a_place_that_fails_is_reported_and_asked_again(page: Page | None, problem: str) -> None:
    shown = Shown({} if page is None else {"/heads/checkpoint": page})
    with compared(shown, 3) as two, capture_logs() as said:
        two.gossip.ask()
        two.gossip.ask()
        assert problem in two.found()[3]
        assert len(said) == 1
        shown.show(OURS, 3)
        two.gossip.ask()
        assert two.found() == (b.START, 3, 0, "")


def test_nobody_answers() -> None:
    with showing(Shown()) as url:
        pass
    with closing(Elsewhere(url, b.ORIGIN)) as place, pytest.raises(UnavailableError, match="does not answer"):
        list(place.checkpoints())
    with pytest.raises(ConfigError, match="must begin with http"):
        Elsewhere("ftp://example.org", b.ORIGIN)


def test_the_settings_name_places_and_webhooks(tmp_path: Path) -> None:
    path = tmp_path / "kt.toml"
    vkey = Pinned(b.ORIGIN, b.SIGNER_KEY).vkey
    path.write_text(
        f'directory = "people"\norigin = "{b.ORIGIN}"\nkey = "{vkey}"\n[monitor]\n'
        'also = ["https://a.example", "https://b.example"]\nwebhooks = ["https://c.example"]\n'
    )
    table = load_settings(path).monitor
    assert table.also == ("https://a.example", "https://b.example")
    assert (table.webhooks, table.also_interval) == (("https://c.example",), INTERVAL)


def test_an_audit_compares_once() -> None:
    shown, other = Shown(), Shown()
    shown.show(OURS, 2)
    with compared(shown, 3) as two, showing(other) as silent, capture_logs() as said:
        places = [two.place, Elsewhere(silent, b.ORIGIN)]
        first, second = compare_once(places, two.ledger, lambda: 7)
        places[1].close()
    assert (first.agreed, first.heads, first.problem) == (7, 2, "")
    assert (second.agreed, second.problem[-17:]) == (None, "check the address")
    # The command says it.
    assert said == []


def test_a_monitor_ends_with_evidence_that_it_posts_until_it_is_accepted(tmp_path: Path) -> None:
    """The split view: a front end shows another log than the monitor reads."""
    shown, hook = Shown(), Hook("500 Internal Server Error", "302 Found", "202 Accepted")
    shown.show(THEIRS, 4)
    with showing(shown) as url, hooked(hook) as webhook, capture_logs() as said:
        settings = MonitorSettings(
            OURS.names, b.ORIGIN, b.SIGNER_KEY, "", tmp_path, also=(url,), webhooks=(webhook,)
        )
        with pytest.raises(EquivocationError, match="two different logs of 4 leaves") as caught:
            serve(settings, threading.Event(), connect=lambda: first_epochs(OURS, 4))
        saved = caught.value.saved
        assert saved is not None
        assert len(hook.bodies) == 3
        # The next start raises it again, and posts nothing a second time.
        with pytest.raises(EquivocationError, match="proven before"):
            serve(settings, threading.Event(), connect=lambda: first_epochs(OURS, 4))
        assert len(hook.bodies) == 3
    assert saved.name == "checkpoints-size-4.evidence"
    assert "secret-of-the-path" not in repr(said)


def test_evidence_of_another_monitor_ends_this_one(tmp_path: Path) -> None:
    shown = Shown()
    shown.show(THEIRS, 3)
    with compared(shown, 3) as two, pytest.raises(EquivocationError) as found:
        two.gossip.ask()
    assert found.value.evidence is not None
    shown.show(OURS, 3)
    shown.pages["/evidence"] = Page(b'{"evidence": [{"name": "x.evidence"}]}', "application/json")
    shown.pages["/evidence/x.evidence"] = Page(found.value.evidence)
    with showing(shown) as url:
        settings = MonitorSettings(OURS.names, b.ORIGIN, b.SIGNER_KEY, "", tmp_path, also=(url,))
        with pytest.raises(EquivocationError, match="two different logs of 3 leaves") as caught:
            serve(settings, threading.Event(), connect=lambda: first_epochs(OURS, 4))
    assert caught.value.saved is not None
    assert caught.value.saved.read_bytes() == found.value.evidence
