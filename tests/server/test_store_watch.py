"""A front end over a shared store that is away, or that lacks rows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import structlog.testing

from kt_es.server import health, store_watch
from tests import builders as b
from tests.reference.frontends import Front, front, until
from tests.reference.sharing import Replicas, SharedStreams, store_of


@pytest.fixture
def streams() -> SharedStreams:
    """A directory with one epoch, in which alice has published."""
    streams = SharedStreams()
    streams.put_user("alice")
    streams.epoch()
    return streams


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_watch, "PROBE_INTERVAL", 0.01)
    monkeypatch.setattr(health, "ROWS_PATIENCE", 0.0)


class Lacking(Replicas):
    """The same store as ``replicas``, in which the states of epochs from ``lost`` on are missing."""

    def __init__(self, replicas: Replicas) -> None:
        super().__init__()
        self.majority = replicas.majority
        self.lost = 1 << 40

    def get_many(self, family: str, keys: Sequence[bytes], *, again: bool = False) -> list[bytes | None]:
        rows = super().get_many(family, keys, again=again)
        if family != "states":
            return rows
        return [
            row if int.from_bytes(key[:8]) < self.lost else None for key, row in zip(keys, rows, strict=True)
        ]


def reasons(running: Front) -> list[str]:
    answer = running.get("/readyz")
    return [] if answer.status_code == 200 else answer.json()["reasons"]


def looked_up(running: Front) -> int:
    return running.post("/v1/lookup", {"label": b.label_of("alice")}).status_code


def is_away(running: Front) -> bool:
    return 'kt_not_ready{reason="store-away"} 1.0' in running.get("/metrics").text


def test_nobody_has_to_look_up_anything_to_see_that_the_store_goes_and_returns(
    streams: SharedStreams,
) -> None:
    with front(streams, store_of(streams.replicas)) as running, structlog.testing.capture_logs() as lines:
        until(lambda: reasons(running) == [])
        assert not is_away(running)
        streams.replicas.away = True
        until(lambda: reasons(running) == ["store-away"])
        assert is_away(running)
        (problem,) = running.get("/readyz").json()["problems"]
        assert problem.startswith("the shared store (keyspace kt_people) is away for ")
        assert "look at its nodes" in problem
        streams.replicas.away = False
        until(lambda: reasons(running) == [])
        assert not is_away(running)
    events = [line["event"] for line in lines if line.get("part") == "store"]
    assert events == ["the shared store is away", "the shared store works again"]


def test_rows_that_the_next_epoch_lacks_are_named_and_lookups_go_on(streams: SharedStreams) -> None:
    lacking = Lacking(streams.replicas)
    with front(streams, store_of(lacking)) as running:
        until(lambda: reasons(running) == [])
        lacking.lost = 2
        streams.put_user("bob")
        streams.epoch()
        until(lambda: reasons(running) == ["store-rows"])
        (problem,) = running.get("/readyz").json()["problems"]
        assert problem.startswith("no epoch after 1 is taken for ")
        assert "has no good state of epoch 2: it is missing" in problem
        assert looked_up(running) == 200
        lacking.lost = 3
        until(lambda: reasons(running) == [])
        assert running.caught_up()
