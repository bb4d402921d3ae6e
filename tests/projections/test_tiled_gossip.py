"""A monitor that replayed from tiles has few checkpoints of its own, and still proves that it was lied to."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from kt_es.api.codec import encode_model
from kt_es.api.models import HeadBody
from kt_es.cli.auditors.comparing import compared_with
from kt_es.cli.output import Output
from kt_es.client.elsewhere import Elsewhere
from kt_es.client.vouching import Policies
from kt_es.errors import ConfigError, DivergenceError, EquivocationError
from kt_es.evidence import convict
from kt_es.formats.evidence import Evidence
from kt_es.formats.heads import HeadEvent
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.verifiers import Verifiers
from kt_es.process.site import Page
from projections.gossip import Gossip, compare_once
from projections.quorums import Quorums
from projections.tiles.following import replayed_tiles
from projections.unproven import kept_unproven
from tests import builders as b
from tests.projections.test_quorums import ONE, TWO, WITNESSES, cosigned, show
from tests.reference.forks import story
from tests.reference.shown import Shown, published, showing
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


def test_the_server_of_the_tiles_has_the_other_half_of_the_proof(ledger: Ledger) -> None:
    """A front end shows its own checkpoint of each size, so a witness' checkpoint becomes evidence."""
    shown, own = Shown(), Shown()
    shown.show(THEIRS, 2)
    ours = HeadEvent.decode(next(iter(OURS.log.read(OURS.names.heads, 1))).data)
    reply = HeadBody(2, ours.smh_bytes, ours.heads_checkpoint, ours.mutations_checkpoint, (), "")
    own.pages["/v1/heads/2"] = Page(json.dumps(encode_model(reply)).encode(), "application/json")
    with (
        showing(shown) as url,
        showing(own) as front_end,
        closing(Elsewhere(url, b.ORIGIN)) as place,
        closing(Elsewhere(front_end, b.ORIGIN)) as asked,
        pytest.raises(EquivocationError) as caught,
    ):
        compare_once([place], ledger, lambda: b.START, own=asked)
    assert url in str(caught.value)
    assert caught.value.evidence is not None
    assert "two different logs of 2 leaves" in convict(Evidence.decode(caught.value.evidence))


def test_half_of_a_proof_is_kept_and_compared_at_each_start(ledger: Ledger, tmp_path: Path) -> None:
    shown = Shown()
    shown.show(THEIRS, 2)
    with showing(shown) as url, closing(Elsewhere(url, b.ORIGIN)) as place:
        for _ in range(2):
            with pytest.raises(DivergenceError, match="each start compares it again"):
                compare_once([place], ledger, lambda: b.START, data=tmp_path)
    (kept,) = kept_unproven(tmp_path, b.ORIGIN)
    assert Path(kept.url).read_bytes() == published(THEIRS, 2)["heads"]
    with pytest.raises(DivergenceError, match="another log of heads with 2 leaves"):
        compare_once([kept], ledger, lambda: b.START, data=tmp_path)


def _broken(folder: Path, kind: str) -> Path:
    for path in (folder / "heads" / "tile" / kind).rglob("*"):
        if path.is_file():
            path.write_bytes(bytes(path.stat().st_size))
    return folder


def test_half_of_a_proof_is_kept_also_if_the_tiles_beside_it_are_broken(
    ledger: Ledger, tmp_path: Path
) -> None:
    folder = _broken(exported(tmp_path / "theirs", THEIRS.log), "0")
    with (
        web_server(folder) as url,
        closing(Elsewhere(url, b.ORIGIN)) as place,
        pytest.raises(DivergenceError, match="each start compares it again"),
    ):
        compare_once([place], ledger, lambda: b.START, data=tmp_path)
    (kept,) = kept_unproven(tmp_path, b.ORIGIN)
    assert Path(kept.url).read_bytes() == published(THEIRS, 2)["heads"]


def test_half_of_a_proof_is_kept_also_if_it_is_of_a_longer_log(ledger: Ledger, tmp_path: Path) -> None:
    longer = story("alice", "mallory", "trent", "victor")
    folder = _broken(exported(tmp_path / "theirs", longer.log), "entries")
    with (
        web_server(folder) as url,
        closing(Elsewhere(url, b.ORIGIN)) as place,
        pytest.raises(DivergenceError, match=r"another log of 3 heads.*each start compares it again"),
    ):
        compare_once([place], ledger, lambda: b.START, data=tmp_path)
    (kept,) = kept_unproven(tmp_path, b.ORIGIN)
    assert Path(kept.url).read_bytes() == published(longer, 4)["heads"]


def test_half_of_a_proof_is_kept_also_if_it_came_with_cosignatures(ledger: Ledger, tmp_path: Path) -> None:
    shown = Shown()
    show(shown, note := cosigned(THEIRS, 2, ONE, TWO))
    gossip = Gossip([], ledger, lambda: b.START, data=tmp_path)
    with showing(shown) as url, closing(Elsewhere(url, b.ORIGIN)) as place:
        quorums = Quorums(Policies(WITNESSES), [place], ledger, lambda _: None, gossip.unproven)
        with pytest.raises(DivergenceError, match="each start compares it again"):
            quorums.look()
    (kept,) = kept_unproven(tmp_path, b.ORIGIN)
    assert Path(kept.url).read_text() == note
    with pytest.raises(DivergenceError, match="another log of heads with 2 leaves"):
        compare_once([kept], ledger, lambda: b.START)


def test_a_longer_log_is_compared_by_its_tiles(ledger: Ledger, tmp_path: Path) -> None:
    """``ledger`` ends before the other place does, which is of the same log once and of another one then."""
    same = exported(tmp_path / "same", story("alice", "bob", "carol", "dave").log)
    with web_server(same) as url, closing(Elsewhere(url, b.ORIGIN)) as place:
        (found,) = compare_once([place], ledger, lambda: b.START)
    assert (found.agreed, found.heads, found.problem) == (b.START, 3, "")
    other = exported(tmp_path / "other", story("alice", "mallory", "trent", "victor").log)
    with (
        web_server(other) as url,
        closing(Elsewhere(url, b.ORIGIN)) as place,
        pytest.raises(EquivocationError) as caught,
    ):
        compare_once([place], ledger, lambda: b.START)
    assert caught.value.evidence is not None
    assert "two different heads of epoch 2" in convict(Evidence.decode(caught.value.evidence))


def test_a_longer_log_without_tiles_is_not_compared(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Shown()
    shown.show(story("alice", "mallory", "trent", "victor"), 4)
    with showing(shown) as url:
        found = compared_with(Output(quiet=True), [url], b.ORIGIN, ledger)
    assert "it shows 1 head more than were verified here, and no tiles" in found.complaint
    assert found.not_compared == f"; not compared with {url}"
    assert [one["agrees"] for one in found.documents] == [False]
    assert "not compared" in capsys.readouterr().err


def test_an_audit_does_not_begin_with_a_file_that_cannot_be_used(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(published(OURS, 2)["heads"][:-20])
    for where in ("", "kt.example.org:8443", str(tmp_path / "cut")):
        with pytest.raises(ConfigError):
            compared_with(Output(), [where], b.ORIGIN, ledger)
    changed = bytearray(published(OURS, 2)["heads"])
    changed[-20:-10] = b"AAAAAAAAAA"
    (tmp_path / "changed").write_bytes(changed)
    with pytest.raises(ConfigError, match="cannot be compared with"):
        compared_with(Output(), [str(tmp_path / "changed")], b.ORIGIN, ledger)
