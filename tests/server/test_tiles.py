"""Both logs as tiles over HTTP: what an independent reader finds, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from kt_es.api.tiles import TILE_MEDIA
from kt_es.errors import DivergenceError, UnavailableError
from kt_es.eventstore.streams import content_event
from kt_es.formats.queue import Record, decode_records, encode_records
from kt_es.server.limits import route_of
from tests import builders as b
from tests.reference.frontends import Front, front, until
from tests.reference.memory_log import MemoryLog
from tests.reference.sharing import SharedStreams, store_of
from tests.reference.signed_streams import SignedStreams
from tests.reference.tile_reader import read_log

USERS = [f"user{number}" for number in range(300)]


@pytest.fixture(scope="module", params=["own", "shared"])
def running(request: pytest.FixtureRequest) -> Iterator[Front]:
    """More than 256 records in two epochs."""
    streams = SignedStreams() if request.param == "own" else SharedStreams()
    streams.put(*map(b.mutation, USERS[:120]))
    streams.epoch()
    streams.put(*map(b.mutation, USERS[120:]))
    streams.epoch()
    with front(streams, store_of(streams.replicas) if isinstance(streams, SharedStreams) else None) as made:
        yield made


def records(streams: SignedStreams) -> list[bytes]:
    events = streams.log.read(streams.names.mutations)
    return [record for event in events for record in decode_records(event.data)[1]]


def read(front_end: Front, log: str) -> list[bytes]:
    def fetch(name: str) -> bytes:
        answer = front_end.get(f"/{log}/{name}")
        assert answer.status_code == 200, answer.text
        if name != "checkpoint":
            assert answer.headers["content-type"] == TILE_MEDIA
            assert "immutable" in answer.headers["cache-control"]
        return answer.content

    return read_log(fetch)[1]


def test_a_reader_finds_both_logs(running: Front) -> None:
    assert read(running, "mutations") == records(running.streams)
    assert len(read(running, "heads")) == 2
    # From where another reader went on, from the start, and a part of what there is now.
    for name, count in (("001.p/10", 10), ("000", 256), ("000.p/7", 7)):
        first = 256 * int(name[:3])
        data = b"".join(len(one).to_bytes(2) + one for one in records(running.streams)[first : first + count])
        assert running.get(f"/mutations/tile/entries/{name}").content == data


@pytest.mark.parametrize(
    "name", ["0/002", "0/001", "0/001.p/255", "1/000", "1/000.p/2", "2/000.p/1", "entries/001"]
)
def test_what_the_log_does_not_have_yet_is_not_found(running: Front, name: str) -> None:
    answer = running.get(f"/mutations/tile/{name}")
    assert (answer.status_code, answer.json()["reason"]) == (404, "unknown-epoch")
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "name", ["0/0", "x/000", "0/000.p/256", "entries/000.p/0", "0/x000/000", "0/000/", "64/000"]
)
def test_another_name_is_malformed(running: Front, name: str) -> None:
    answer = running.get(f"/heads/tile/{name}")
    assert (answer.status_code, answer.json()["field"]) == (400, "tile")


def test_entries_are_read_once_for_all_readers() -> None:
    """Also for those who know the log at an earlier size."""
    streams = SignedStreams()
    streams.put(*map(b.mutation, USERS[:10]))
    streams.epoch()
    with front(streams) as made:
        five = made.get("/mutations/tile/entries/000.p/5").content
        asked: list[str] = []
        made.running._connections._shared = _Refusing(asked)  # type: ignore[assignment]
        assert made.get("/mutations/tile/entries/000.p/5").content == five
        four = made.get("/mutations/tile/entries/000.p/4").content
        assert four == five[: len(four)] != five
        assert asked == []
        assert made.get("/mutations/tile/entries/000.p/6").status_code == 503
        assert asked == ["last_revision"]


class _Refusing:
    """A log that cannot be reached, and notes who tries."""

    def __init__(self, asked: list[str]) -> None:
        self._asked = asked

    def __getattr__(self, name: str) -> Callable[..., object]:
        def refuse(*_: object) -> object:
            self._asked.append(name)
            raise UnavailableError("the log is away")

        return refuse


def test_entries_cost_more_than_hashes() -> None:
    assert route_of("/mutations/tile/entries/x001/000").large
    assert not route_of("/mutations/tile/0/000").large
    assert route_of("/heads/tile/entries/000.p/1").cost > route_of("/heads/tile/0/000").cost


def other(data: bytes) -> bytes:
    first, encoded = decode_records(data)
    record = Record.decode(encoded[0])
    changed = Record(record.sequence, record.item, type(record.verdict).STALE)
    return encode_records(first, [changed.encode(), *encoded[1:]])


def test_records_that_differ_from_what_was_verified_stop_the_front_end() -> None:
    streams = SignedStreams()
    streams.put(b.mutation("alice"))
    streams.epoch()
    with front(streams) as made:
        whole, changed = streams.log, MemoryLog()
        for event in whole.read(streams.names.mutations):
            stream = streams.names.mutations
            changed.append(stream, event.revision - 1, [content_event(stream, event.type, other(event.data))])
        made.running._connections._shared = changed
        answer = made.get("/mutations/tile/entries/000.p/2")
        assert answer.status_code >= 500
        until(lambda: bool(made.errors))
        assert isinstance(made.errors[0], DivergenceError)
        assert "other records in tile 0" in str(made.errors[0])
