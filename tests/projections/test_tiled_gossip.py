"""A monitor that replayed from tiles has few checkpoints of its own, and still proves that it was lied to."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from kt_es.client.elsewhere import Elsewhere
from kt_es.errors import DivergenceError, EquivocationError
from kt_es.evidence import convict
from kt_es.formats.evidence import Evidence
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.verifiers import Verifiers
from projections.gossip import compare_once
from projections.tiles.following import replayed_tiles
from tests import builders as b
from tests.reference.forks import story
from tests.reference.shown import Shown, showing
from tests.reference.signing import new_ledger
from tests.reference.static_servers import web_server
from tests.reference.tile_folders import FolderTiles, exported

OURS = story("alice", "bob", "carol")
THEIRS = story("alice", "mallory")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = new_ledger()
    tiles = FolderTiles(exported(tmp_path / "ours", OURS.log))
    for _ in replayed_tiles(tiles, made, lambda _: None, Verifiers.none(), patience=0, say=print):
        pass
    # Only the last head came with checkpoints.
    assert made.tables.heads.event(2).heads_checkpoint == ""
    return made


def test_the_same_log_agrees(ledger: Ledger, tmp_path: Path) -> None:
    folder = exported(tmp_path / "same", story("alice", "bob").log)
    with web_server(folder) as url, closing(Elsewhere(url, b.ORIGIN)) as place:
        (found,) = compare_once([place], ledger, lambda: b.START)
    assert (found.heads, found.problem) == (2, "")


def test_the_tiles_of_the_other_log_have_the_evidence(ledger: Ledger, tmp_path: Path) -> None:
    folder = exported(tmp_path / "theirs", THEIRS.log)
    with (
        web_server(folder) as url,
        closing(Elsewhere(url, b.ORIGIN)) as place,
        pytest.raises(EquivocationError) as caught,
    ):
        compare_once([place], ledger, lambda: b.START)
    assert caught.value.evidence is not None
    found = convict(Evidence.decode(caught.value.evidence))
    assert found == "the directory signed two different heads of epoch 2"


def test_without_its_tiles_another_signed_log_is_an_alarm_all_the_same(ledger: Ledger) -> None:
    shown = Shown()
    shown.show(THEIRS, 2)
    with (
        showing(shown) as url,
        closing(Elsewhere(url, b.ORIGIN)) as place,
        pytest.raises(DivergenceError) as caught,
    ):
        compare_once([place], ledger, lambda: b.START)
    assert "the directory signed another log of heads with 2 leaves than was verified here" in str(
        caught.value
    )
