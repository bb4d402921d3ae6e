"""Names of tiles and bundles of entries, as C2SP tlog-tiles has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_es.errors import MalformedError
from kt_es.formats.tiles import bundle_path, decode_bundle, encode_bundle, parse_path, tile_path
from kt_es.merkle.tiles import Tile
from tests.reference.tile_reader import place


def test_names_are_those_of_the_specification() -> None:
    # The example of tlog-tiles: number 1234067.
    assert tile_path(Tile(0, 1234067)) == "tile/0/x001/x234/067"
    assert tile_path(Tile(2, 5, 7)) == "tile/2/005.p/7"
    assert bundle_path(1000, 255) == "tile/entries/x001/000.p/255"


@given(st.integers(0, 63), st.integers(0, 2**55), st.integers(1, 256))
def test_every_name_is_read_back(level: int, index: int, width: int) -> None:
    tile = Tile(level, index, width)
    assert tile_path(tile) == f"tile/{level}/{place(index, width)}"
    assert parse_path(tile_path(tile)) == (tile, False)
    assert parse_path(bundle_path(index, width)) == (Tile(0, index, width), True)


@pytest.mark.parametrize(
    "name",
    [
        "tile/0/0", "tile/0/00", "tile/0/0000", "tile/0/x000/001", "tile/0/1/000", "tile/0/x001/x000",
        "tile/00/000", "tile/-1/000", "tile/64/000", "tile/100/000", "tile/0/000.p/0", "tile/0/000.p/256",
        "tile/0/000.p/01", "tile/0/000.p/", "tile/0/000.p", "tile/0/000/", "tile//000", "/tile/0/000",
        "tile/data/000", "tile/0/../000", "tile/entries/000.p/257", "tile/0/٠٠٠", "tile/0/000\n",
        "", "checkpoint",
    ],
)  # fmt: skip
def test_no_other_name_is_one(name: str) -> None:
    with pytest.raises(MalformedError):
        parse_path(name)


@given(st.lists(st.binary(max_size=300), max_size=256))
def test_bundles_are_read_back(entries: list[bytes]) -> None:
    data = encode_bundle(entries)
    assert len(data) == sum(2 + len(entry) for entry in entries)
    assert decode_bundle(data, len(entries)) == entries


def test_a_bundle_has_what_it_should() -> None:
    assert encode_bundle([b"", b"abc"]) == b"\x00\x00\x00\x03abc"
    for data, count in (
        (b"\x00\x03ab", 1),
        (b"\x00", 1),
        (b"\x00\x00", 2),
        (b"\x00\x00\x00\x00", 1),
        (b"", 1),
    ):
        with pytest.raises(MalformedError):
            decode_bundle(data, count)
    assert decode_bundle(encode_bundle([b"x" * 65_535]), 1) == [b"x" * 65_535]
    with pytest.raises(MalformedError, match="65535"):
        encode_bundle([b"x" * 65_536])
