"""Which lookups the event loop answers itself, and which ones a thread of the pool."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kt_es.ledger.openings import Missing
from kt_es.server.handlers import DirectoryReader
from tests import builders as b
from tests.reference.frontends import Front, front, until
from tests.reference.sharing import Replicas, SharedStreams, store_of
from tests.reference.signed_streams import SignedStreams

LOOP, POOL = "loop", "reads"


def here() -> str:
    """Where the caller runs. ``Front.request`` runs the event loop in the thread of the test."""
    thread = threading.current_thread()
    return LOOP if thread is threading.main_thread() else thread.name.partition("_")[0]


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where each lookup was answered, one that had to be given up there not included."""
    assert here() == LOOP
    answered = list[str]()
    lookup: Callable[..., Any] = DirectoryReader.lookup

    def noted(*given: Any, **named: Any) -> Any:
        found = lookup(*given, **named)
        answered.append(here())
        return found

    monkeypatch.setattr(DirectoryReader, "lookup", noted)
    return answered


@pytest.fixture
def local() -> Iterator[Front]:
    """A front end with its own replica of two epochs. The log has no opening of bob."""
    streams = SignedStreams()
    streams.put_user("alice")
    streams.put(b.mutation("bob"))
    streams.epoch()
    streams.epoch()
    with front(streams) as running:
        opened = b.mutation("alice")
        until(
            lambda: not isinstance(running.running.openings.get(b.index("alice"), opened.entry_hash), Missing)
        )
        yield running


@pytest.mark.parametrize(
    ("user", "more", "place"),
    [
        ("alice", {}, LOOP),
        ("alice", {"epoch": 2}, LOOP),
        ("alice", {"since": 1}, LOOP),
        ("nobody", {}, LOOP),
        ("alice", {"epoch": 1}, POOL),
        ("nobody", {"epoch": 1}, POOL),
        ("bob", {}, POOL),
    ],
)
def test_the_loop_answers_from_the_latest_epoch_of_a_local_replica(
    local: Front, places: list[str], user: str, more: dict[str, int], place: str
) -> None:
    for _ in range(2):
        answer = local.post("/v1/lookup", {"label": b.label_of(user), **more})
        assert answer.status_code == 200
        assert (answer.json()["profile"] is None) == (user != "alice")
    assert places == [place, place]


class Watched(Replicas):
    """Notes where each call is made."""

    def __init__(self) -> None:
        super().__init__()
        self.places = set[str]()

    def _reach(self) -> None:
        self.places.add(here())
        super()._reach()


def test_the_loop_never_waits_for_a_shared_store(places: list[str]) -> None:
    streams, users = SharedStreams(), [f"user{number}" for number in range(10)]
    for user in users:
        streams.put_user(user)
    streams.epoch()
    replicas = Watched()
    replicas.majority = streams.replicas.majority
    with front(streams, store_of(replicas)) as running:
        replicas.places.clear()
        # The second time, rows and opening are in memory. Nobody knows that before they are looked for.
        for user in [*users, "nobody"] * 2:
            assert running.post("/v1/lookup", {"label": b.label_of(user)}).status_code == 200
    assert places == [POOL] * 22
    assert POOL in replicas.places
    assert LOOP not in replicas.places
