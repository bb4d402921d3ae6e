"""A server of tiles may answer anything: sizes and times are bounded, and nothing leads elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from kt_es.errors import MalformedError, MisfitError, UnavailableError
from kt_es.formats.heads import MAX_CHECKPOINT
from kt_es.formats.tiles import encode_bundle
from kt_es.merkle.tiles import Tile
from projections.tiles.server import TileServer
from tests.reference.rude_servers import Answer, answer, endless, hanging, rude_server, slow

MISSING = answer(b"<html>nothing here</html>", "404 Not Found")
BUSY = answer(b"", "503 Service Unavailable", "retry-after: 0")


@contextmanager
def asking(*answers: Answer, timeout: float = 30.0, path: str = "") -> Iterator[tuple[TileServer, list[str]]]:
    with rude_server(*answers) as (url, asked), closing(TileServer(url + path, timeout=timeout)) as server:
        yield server, asked


def test_files_are_below_the_address() -> None:
    with asking(answer(b"text"), answer(bytes(64)), answer(encode_bundle([b"one", b"two"])), path="/kt/") as (
        server,
        asked,
    ):
        assert server.checkpoint("heads") == b"text"
        assert server.tile("mutations", Tile(1, 1234067, 2)) == bytes(64)
        assert server.bundle("heads", 0, 2) == [b"one", b"two"]
    assert asked == [
        "/kt/heads/checkpoint",
        "/kt/mutations/tile/1/x001/x234/067.p/2",
        "/kt/heads/tile/entries/000.p/2",
    ]


def test_the_whole_file_takes_the_place_of_a_partial_one() -> None:
    entries = [bytes([number]) for number in range(256)]
    with asking(MISSING, answer(encode_bundle(entries)), MISSING, answer(bytes(32) * 256)) as (server, asked):
        assert server.bundle("heads", 7, 3) == entries[:3]
        assert server.tile("heads", Tile(0, 7, 3)) == bytes(96)
    assert asked == [
        *("/heads/tile/entries/007.p/3", "/heads/tile/entries/007"),
        *("/heads/tile/0/007.p/3", "/heads/tile/0/007"),
    ]


def test_what_is_missing_is_named() -> None:
    with asking(MISSING) as (server, _):
        with pytest.raises(MisfitError, match=r"has no heads/checkpoint .*check the address"):
            server.checkpoint("heads")
        with pytest.raises(MisfitError, match=r"has no heads/tile/entries/000 "):
            server.bundle("heads", 0, 5)


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect"])
def test_redirects_are_not_followed(status: str) -> None:
    with rude_server(answer(b"secret")) as (inside, asked_inside):
        moved = answer(b"", status, f"location: {inside}/heads/checkpoint")
        with asking(moved) as (server, asked):
            leads = rf"has the status 30\d: it leads to {inside}/heads/checkpoint, and redirects are not"
            with pytest.raises(MisfitError, match=leads):
                server.checkpoint("heads")
            assert asked == ["/heads/checkpoint"]
    assert asked_inside == []


def test_answers_without_an_end_are_cut() -> None:
    with asking(endless) as (server, _):
        with pytest.raises(MisfitError, match=f"is larger than {MAX_CHECKPOINT} bytes"):
            server.checkpoint("heads")
        with pytest.raises(MisfitError, match="is larger than 8192 bytes"):
            server.tile("heads", Tile(0, 0))
        with pytest.raises(MisfitError, match="is larger than"):
            server.bundle("mutations", 0, 256)


@pytest.mark.parametrize("rude", [slow, hanging])
def test_slow_answers_take_no_longer_than_the_timeout(rude: Answer) -> None:
    with asking(rude, timeout=0.3) as (server, _):
        with pytest.raises(UnavailableError):
            server.checkpoint("heads")
        with pytest.raises(UnavailableError):
            server.bundle("heads", 0, 1)


def test_compressed_answers_are_refused() -> None:
    bomb = answer(b"bomb", "200 OK", "content-encoding: gzip")
    with asking(bomb) as (server, _), pytest.raises(MisfitError, match="compressed"):
        server.checkpoint("heads")


def test_a_busy_server_is_waited_for_except_at_the_start_of_a_look() -> None:
    with asking(BUSY, BUSY, answer(bytes(32))) as (server, asked):
        assert server.tile("heads", Tile(0, 0, 1)) == bytes(32)
        assert len(asked) == 3
    with asking(BUSY) as (server, asked):
        with pytest.raises(UnavailableError, match="is unavailable"):
            server.checkpoint("heads")
        assert len(asked) == 1


@pytest.mark.parametrize(
    "data", [b"", b"\x00", encode_bundle([b"one"]), encode_bundle([b"one"] * 3), b"\xff\xffx"]
)
def test_bundles_have_exactly_the_entries_that_were_asked_for(data: bytes) -> None:
    with asking(answer(data)) as (server, _), pytest.raises(MalformedError):
        server.bundle("heads", 0, 2)
