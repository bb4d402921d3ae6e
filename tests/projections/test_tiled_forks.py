"""Servers of tiles that go back, or show another log than before: behind, rolled back, or evidence."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path

import pytest

from kt_es.errors import (
    DivergenceError,
    EquivocationError,
    RollbackError,
    UnavailableError,
)
from kt_es.evidence import convict
from kt_es.formats.evidence import Evidence
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.tables import FAMILIES
from kt_es.ledger.verifiers import Verifiers
from projections.tiles.comparing import Lag
from projections.tiles.replay import TiledReplay
from projections.unproven import UnprovenError
from tests import builders as b
from tests.reference.clocks import Clock
from tests.reference.forks import first_epochs, story
from tests.reference.signing import new_ledger
from tests.reference.tile_folders import (
    FolderTiles,
    by_log,
    exported,
    refused,
    replay,
    rewrite,
    tiles_of,
)

NAMED = ("alice", "bob", "carol")
OTHER = ("alice", "bob", "eve", "dave")


@pytest.mark.parametrize("left", [1, 2])
def test_a_server_that_goes_back_is_behind_and_then_rolled_back(left: int, tmp_path: Path) -> None:
    ledger, clock = by_log(story(*NAMED)), Clock()
    tiles = FolderTiles(exported(tmp_path, first_epochs(story(*NAMED), left)))
    source = TiledReplay(tiles, ledger, lambda _: None, Verifiers.none(), Lag(lambda: 60.0, clock))
    with pytest.raises(UnavailableError, match="may be behind"):
        list(source.look())
    clock.now += 60.0
    with pytest.raises(RollbackError, match="the log was rolled back: http://tiles shows") as caught:
        list(source.look())
    assert caught.value.exit_code == 4
    source.close()
    # An audit has no patience here.
    assert isinstance(refused(tiles, ledger), RollbackError)


@pytest.mark.parametrize(
    "users", [OTHER, OTHER[:3], ("alice", "eve"), ("eve",), ("alice", "eve", "carol", "bob")]
)
@pytest.mark.parametrize("source", ["log", "tiles"])
def test_another_log_than_before_is_evidence(users: tuple[str, ...], source: str, tmp_path: Path) -> None:
    ours = by_log(story(*NAMED))
    if source == "tiles":
        ours = new_ledger()
        replay(tiles_of(tmp_path / "ours", story(*NAMED)), ours)
    error = refused(tiles_of(tmp_path / "theirs", story(*users)), ours)
    first = next(at for at, pair in enumerate(zip(NAMED, users, strict=False)) if pair[0] != pair[1])
    assert isinstance(error, EquivocationError), error
    assert error.exit_code == 5
    assert error.evidence is not None
    assert f"another signed head of epoch {first + 1}" in str(error)
    found = convict(Evidence.decode(error.evidence))
    assert found == f"the directory signed two different heads of epoch {first + 1}"


def test_two_checkpoints_of_one_size_are_evidence_without_their_tiles(tmp_path: Path) -> None:
    ours = by_log(story(*NAMED))
    tiles = tiles_of(tmp_path, story(*OTHER[:3]))
    for path in (tmp_path / "heads" / "tile").rglob("*"):
        if path.is_file():
            path.unlink()
    error = refused(tiles, ours)
    assert isinstance(error, EquivocationError)
    assert "two different logs of 3 leaves" in str(error)


def test_two_checkpoints_of_one_size_are_evidence_whatever_the_tiles_are(tmp_path: Path) -> None:
    tiles = tiles_of(tmp_path, story(*OTHER[:3]))
    tiles.change = lambda name, data: data if name.endswith("checkpoint") else bytes(len(data))
    error = refused(tiles, by_log(story(*NAMED)))
    assert isinstance(error, EquivocationError)
    assert "two different logs of 3 leaves" in str(error)


def test_a_head_that_the_directory_did_not_sign_convicts_nobody(tmp_path: Path) -> None:
    tiles = tiles_of(tmp_path, story(*NAMED))
    rewrite(tiles, "heads", lambda leaves: [*leaves[:2], b"junk", b"more"])
    error = refused(tiles, by_log(story(*NAMED)))
    # The checkpoint over it is signed, so it is half of a proof.
    assert isinstance(error, UnprovenError)
    assert "http://tiles has another head of epoch 3" in str(error)
    assert "has not signed it" in str(error)


def test_other_records_under_the_same_heads_are_a_divergence_or_evidence(tmp_path: Path) -> None:
    ours, theirs = by_log(story(*NAMED)), tiles_of(tmp_path / "theirs", story(*OTHER[:3]))
    true = exported(tmp_path / "true", story(*NAMED).log)
    theirs.change = lambda name, data: (true / name).read_bytes() if name.startswith("heads") else data
    error = refused(theirs, ours)
    assert isinstance(error, EquivocationError)
    assert "the head of epoch 3 and a checkpoint name two different logs" in str(error)


@pytest.mark.parametrize("reads", range(1, 8))
def test_a_server_that_turns_to_another_log_while_it_is_read_is_convicted(reads: int, tmp_path: Path) -> None:
    """Files of both logs together prove nothing, so they are not the last word."""
    tiles = tiles_of(tmp_path / "ours", story(*NAMED, "zoe"))
    theirs = exported(tmp_path / "theirs", story(*OTHER).log)

    def turn(name: str, data: bytes) -> bytes:
        if len(tiles.read) == reads:
            tiles.folder = theirs
        return data

    tiles.change = turn
    ledger = by_log(story(*NAMED))
    # A file that is not there any more is an outage. After all files were read, nothing is noticed yet.
    with suppress(EquivocationError, UnavailableError):
        assert replay(tiles, ledger) == [4]
    error = refused(tiles, ledger)
    assert isinstance(error, EquivocationError)
    assert error.evidence is not None
    assert "signed two different heads" in (found := convict(Evidence.decode(error.evidence))) or (
        "a checkpoint name two different logs" in found
    )


def test_logs_that_never_end_do_not_put_off_the_comparison_of_the_key(tmp_path: Path) -> None:
    """Each time the log of mutations ends an epoch before the log of heads, and both have grown."""
    streams, clock = story(*NAMED, "dave"), Clock()
    for epochs in range(1, 5):
        exported(tmp_path / "grown", first_epochs(streams, epochs))
        exported(tmp_path / str(epochs), first_epochs(streams, epochs))
    tiles = FolderTiles(tmp_path / "grown")
    shown = [0]

    def behind(name: str, data: bytes) -> bytes:
        if not name.endswith("/checkpoint"):
            return data
        return (tmp_path / str(shown[0] - name.startswith("mutations")) / name).read_bytes()

    tiles.change = behind
    ledger = Ledger(MemoryStore(FAMILIES), b.ORIGIN, b.public(b.private_key("eve")))
    source = TiledReplay(tiles, ledger, lambda _: None, Verifiers.none(), Lag(lambda: 60.0, clock))
    with closing(source):
        for shown[0] in (2, 3):
            with pytest.raises(UnavailableError, match="never was a signer key"):
                list(source.look())
        clock.now += 60.0
        shown[0] = 4
        with pytest.raises(DivergenceError, match="never was a signer key"):
            list(source.look())
