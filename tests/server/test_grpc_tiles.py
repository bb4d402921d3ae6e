"""Both logs as tiles over gRPC: the same as over HTTP, in answers that every client takes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.formats.queue import MUTATIONS, decode_records, encode_mutations
from kt_es.formats.tiles import parse_path
from kt_es.server.grpc.methods import SERVICE, DirectoryMethods
from kt_es.server.limits import route_of
from tests import builders as b
from tests.reference.frontends import front
from tests.reference.grpc_doors import Door, grpc_door
from tests.reference.signed_streams import SignedStreams
from tests.reference.tile_reader import read_log

LOGS = {"heads": 1, "mutations": 2}


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    """More than 256 records, and a tile whose entries are too large for one answer."""
    streams = SignedStreams()
    streams.put(*(b.mutation(f"user{number}") for number in range(120)))
    streams.epoch()
    for start in range(0, 240, 15):
        # Items of the largest size: they are no mutations, and stand in the log all the same.
        streams.queue(MUTATIONS, encode_mutations([bytes([start]) * 16_000] * 15))
    streams.epoch()
    with front(streams) as made, grpc_door(made) as door:
        yield door
        assert not made.errors


def fetched(door: Door, log: str, name: str) -> bytes:
    """One file of a log, by methods of gRPC."""
    if name == "checkpoint":
        head = door.call("LatestHead")
        return str(getattr(head, f"{log}_checkpoint")).encode()
    tile, is_bundle = parse_path(name)
    place = {"log": LOGS[log], "index": tile.index, "width": tile.width}
    if not is_bundle:
        return b"".join(door.call("Tile", level=tile.level, **place).hashes)
    entries: list[bytes] = []
    while len(entries) < tile.width:
        more = door.call("Entries", skip=len(entries), **place).entries
        assert 0 < sum(map(len, more)) <= 2 << 20
        entries += more
    return b"".join(len(entry).to_bytes(2) + entry for entry in entries)


@pytest.mark.parametrize("log", LOGS)
def test_an_independent_reader_finds_both_logs(door: Door, log: str) -> None:
    checkpoint, entries = read_log(lambda name: fetched(door, log, name))
    assert checkpoint == door.front.get(f"/{log}/checkpoint").text
    for name in ("tile/0/000.p/2", "tile/entries/000.p/2"):
        assert fetched(door, log, name) == door.front.get(f"/{log}/{name}").content
    if log == "mutations":
        events = door.front.streams.log.read(door.front.streams.names.mutations)
        assert entries == [record for event in events for record in decode_records(event.data)[1]]


def test_a_whole_tile_is_the_default(door: Door) -> None:
    hashes = door.call("Tile", log=LOGS["mutations"]).hashes
    entries = door.call("Entries", log=LOGS["mutations"]).entries
    assert len(hashes) == 256
    assert [log_leaf_hash(entry) for entry in entries] == hashes[: len(entries)]
    # The answer ends before it is too large.
    assert 120 < len(entries) < 256
    assert list(door.call("Entries", log=LOGS["heads"], width=2, skip=2).entries) == []


def test_entries_cost_what_they_cost_over_http(door: Door) -> None:
    service = door.front.running
    methods = {method.name: method for method in DirectoryMethods(service.frontend, service.feed).methods()}
    assert methods[f"/{SERVICE.full_name}/Tile"].route == route_of("/heads/tile/0/000")
    assert methods[f"/{SERVICE.full_name}/Entries"].route == route_of("/heads/tile/entries/000")
