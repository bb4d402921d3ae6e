"""A monitor that began with a snapshot knows nothing of earlier heads: who shows those is only behind."""

from __future__ import annotations

import io
from contextlib import closing
from pathlib import Path

import pytest

from kt_es.client.elsewhere import Elsewhere
from kt_es.client.vouching import Policies
from kt_es.errors import EquivocationError, RollbackError, UnavailableError
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.tables import FAMILIES
from kt_es.ledger.verifiers import Verifiers
from projections.auditor import Notice
from projections.gossip import Gossip
from projections.quorums import Quorums
from projections.snapshot import load, save
from projections.tiles.comparing import Lag
from projections.tiles.replay import TiledReplay
from tests import builders as b
from tests.projections.test_quorums import ONE, TWO, WITNESSES, cosigned, show
from tests.reference.clocks import Clock
from tests.reference.forks import first_epochs, story
from tests.reference.shown import Shown, showing
from tests.reference.tile_folders import FolderTiles, by_log, exported, refused, replay, tiles_of

OURS = ("alice", "bob", "carol", "dave", "erin")


@pytest.fixture
def ledger() -> Ledger:
    """It began with a snapshot of epoch 4."""
    snapshot, store = io.BytesIO(), MemoryStore(FAMILIES)
    save(by_log(story(*OURS[:4])), snapshot)
    load(io.BytesIO(snapshot.getvalue()), store, b.ORIGIN, b.SIGNER_KEY)
    return Ledger(store, b.ORIGIN, b.SIGNER_KEY)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_server_that_goes_back_behind_the_snapshot_is_behind_and_then_rolled_back(
    ledger: Ledger, epochs: int, tmp_path: Path
) -> None:
    tiles, clock = FolderTiles(exported(tmp_path, first_epochs(story(*OURS), epochs))), Clock()
    with closing(
        TiledReplay(tiles, ledger, lambda _: None, Verifiers.none(), Lag(lambda: 60.0, clock))
    ) as source:
        with pytest.raises(UnavailableError, match="may be behind"):
            list(source.look())
        clock.now += 60.0
        with pytest.raises(RollbackError, match="was rolled back"):
            list(source.look())


def test_the_replay_goes_on_from_the_snapshot_and_finds_another_log(ledger: Ledger, tmp_path: Path) -> None:
    assert replay(tiles_of(tmp_path / "ours", story(*OURS)), ledger) == [5]
    error = refused(tiles_of(tmp_path / "theirs", story(*OURS[:3], "eve", "mallory")), ledger)
    assert isinstance(error, EquivocationError), error


def test_a_place_that_is_behind_the_snapshot_is_compared_later(ledger: Ledger) -> None:
    shown = Shown()
    with showing(shown) as url, closing(Elsewhere(url, b.ORIGIN)) as place:
        gossip = Gossip([place], ledger, lambda: b.START)
        for epochs in (1, 2, 3):
            shown.show(story(*OURS), epochs)
            gossip.ask()
            (found,) = gossip.neighbours
            assert found.agreed is None
            assert "began with a snapshot of 4" in found.problem
        shown.show(story(*OURS), 4)
        gossip.ask()
        (found,) = gossip.neighbours
        assert (found.agreed, found.heads, found.problem) == (b.START, 4, "")


def test_cosignatures_from_before_the_snapshot_are_no_quorum_and_no_fault(ledger: Ledger) -> None:
    shown, told = Shown(), list[Notice]()
    with showing(shown) as url, closing(Elsewhere(url, b.ORIGIN)) as place:
        gossip = Gossip([], ledger, lambda: b.START)
        quorums = Quorums(Policies(WITNESSES), [place], ledger, told.append, gossip.unproven)
        for epochs in (2, 4):
            show(shown, cosigned(story(*OURS), epochs, ONE, TWO))
            quorums.look()
    assert [notice.raised for notice in told] == [True, False]
