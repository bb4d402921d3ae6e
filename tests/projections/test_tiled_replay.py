"""A replay from tiles: the same state as from the event log, and every lie of whoever serves them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from kt_es.errors import (
    DivergenceError,
    EquivocationError,
    KtError,
    MisfitError,
    UnavailableError,
    UnverifiedRowError,
    VerificationError,
)
from kt_es.formats.heads import HeadEvent
from kt_es.formats.notes import parse_note, sign_text
from kt_es.ledger.ledger import Ledger, check_pinned
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.proofs import prove_head
from kt_es.ledger.tables import FAMILIES
from kt_es.ledger.verifiers import Verifiers
from projections.auditor import audit
from projections.fsck.examination import fsck
from projections.snapshot import save
from projections.tiles.comparing import Lag
from projections.tiles.following import replayed_tiles
from projections.tiles.replay import TiledReplay
from tests import builders as b
from tests.reference.clocks import Clock
from tests.reference.forks import rotate, story
from tests.reference.signing import NAMES, new_ledger
from tests.reference.tile_folders import (
    FolderTiles,
    by_log,
    changed,
    exported,
    refused,
    replay,
    resigned,
    rewrite,
    tiles_of,
)

NAMED = ("alice", "bob", "carol")
OTHER = ("alice", "bob", "eve", "dave")


# --- the truth --------------------------------------------------------------------------------------


def test_tiles_give_the_state_that_the_event_log_gives(tmp_path: Path) -> None:
    streams = story(*NAMED)
    # More than one tile of records, more than one event, and refused items.
    streams.put(*(b.mutation(f"user{number}") for number in range(200)))
    streams.put(*(b.mutation(f"more{number}") for number in range(150)), b.mutation("alice"))
    streams.put_user("dave")
    streams.epoch()
    ledger, must = new_ledger(), by_log(streams)
    assert replay(tiles_of(tmp_path, streams), ledger) == [1, 2, 3, 4]
    assert ledger.committed == must.committed
    for family in FAMILIES:
        rows, others = dict(ledger.store.scan(family)), dict(must.store.scan(family))
        if family == "heads":
            # Only the last head has checkpoints: those that the server shows.
            assert rows.popitem() == others.popitem()
            assert [HeadEvent.decode(row, stored=True).heads_checkpoint for row in rows.values()] == [""] * 3
        else:
            assert rows == others, family


def test_a_state_goes_on_from_either_source(tmp_path: Path) -> None:
    streams = story(*NAMED)
    tiles = tiles_of(tmp_path, streams)
    ledgers = [new_ledger(), by_log(streams)]
    replay(tiles, ledgers[0])
    for user in ("dave", "erin"):
        streams.put_user(user)
        streams.epoch()
        tiles = tiles_of(tmp_path, streams)
        tiles.read.clear()
        epoch = streams.ledger.committed.epoch
        assert replay(tiles, ledgers[0]) == [epoch]
        assert len(tiles.read) == 6  # two checkpoints, and of each log one tile and one bundle
        audit(streams.log, NAMES, ledgers[1], with_queue=False, now=lambda: b.START)
        assert ledgers[0].committed == ledgers[1].committed
        ledgers.reverse()
    assert replay(tiles, ledgers[0]) == []


def test_a_head_between_two_checkpoints_is_completed_by_the_event_log(tmp_path: Path) -> None:
    streams = story(*NAMED)
    ledger = new_ledger()
    with pytest.raises(InterruptedError):
        stopped_after(tiles_of(tmp_path, streams), ledger, epochs=2)
    assert ledger.tables.heads.event(2).heads_checkpoint == ""
    audit(streams.log, NAMES, ledger, with_queue=False, now=lambda: b.START)
    assert ledger.committed.epoch == 3
    assert fsck(ledger.store, b.ORIGIN, b.SIGNER_KEY, log=(streams.log, NAMES)).differences == []
    # Another head of that epoch is still a contradiction.
    ledger = new_ledger()
    with pytest.raises(InterruptedError):
        stopped_after(tiles_of(tmp_path / "again", story(*OTHER)), ledger, epochs=3)
    with pytest.raises(EquivocationError, match="another signed head of epoch 3"):
        audit(streams.log, NAMES, ledger, with_queue=False, now=lambda: b.START)


def test_a_state_without_checkpoints_is_for_monitors_alone(tmp_path: Path) -> None:
    streams, ledger = story(*NAMED), new_ledger()
    replay(tiles_of(tmp_path, streams), ledger)
    assert prove_head(ledger, ledger.committed, 3)[0] == streams.ledger.tables.heads.event(3)
    with pytest.raises(UnverifiedRowError, match="filled from tiles"):
        prove_head(ledger, ledger.committed, 2)
    with pytest.raises(InterruptedError):
        stopped_after(tiles_of(tmp_path, streams), stopped := new_ledger(), epochs=2)
    with pytest.raises(UnverifiedRowError, match="filled from tiles"):
        save(stopped, BytesIO())


def stopped_after(tiles: FolderTiles, ledger: Ledger, epochs: int) -> None:
    def observe(_: object) -> None:
        if ledger.committed.epoch == epochs:
            raise InterruptedError

    for _ in replayed_tiles(tiles, ledger, observe, Verifiers.none(), patience=0, say=print):
        pass


def test_a_replay_that_was_stopped_in_an_epoch_goes_on(tmp_path: Path) -> None:
    tiles, ledger = tiles_of(tmp_path, story(*NAMED)), new_ledger()
    for epochs in (0, 1, 2):
        with pytest.raises(InterruptedError):
            stopped_after(tiles, ledger, epochs)
        assert ledger.committed.epoch == epochs
    assert replay(tiles, ledger) == [3]
    assert ledger.committed == by_log(story(*NAMED)).committed


@pytest.mark.parametrize("pinned", ["signer", "successor"])
def test_checkpoints_of_a_later_key_are_verified_when_the_key_is_known(pinned: str, tmp_path: Path) -> None:
    streams = story("alice")
    rotate(streams, b.signed_config(), "signer", "successor")
    streams.put_user("bob")
    streams.epoch()
    ledger = Ledger(MemoryStore(FAMILIES), b.ORIGIN, b.public(b.private_key(pinned)))
    tiles = tiles_of(tmp_path, streams)
    assert replay(tiles, ledger) == [1, 2, 3]
    check_pinned(ledger, in_force=True)
    assert ledger.committed == by_log(streams, pinned).committed
    # A key that is no signer key of the directory, and the key of before, which is not in force any more.
    for key in ("stranger", "signer"):
        for log in ("heads", "mutations"):
            ledger = Ledger(MemoryStore(FAMILIES), b.ORIGIN, b.public(b.private_key(pinned)))
            error = refused(changed(tiles, f"{log}/checkpoint", resigned(log, key)), ledger)
            assert error.exit_code == 4
            assert "checkpoint" in str(error)


def test_foreign_signatures_are_not_kept(tmp_path: Path) -> None:
    def cosigned(data: bytes) -> bytes:
        note = parse_note(data)
        line = sign_text(note.text, "witness.example.org", b.private_key("witness"))
        return replace(note, signatures=(line, *note.signatures)).encode().encode()

    streams, ledger = story(*NAMED), new_ledger()
    assert replay(changed(tiles_of(tmp_path, streams), "checkpoint", cosigned), ledger) == [1, 2, 3]
    assert ledger.tables.heads.event(3) == by_log(streams).tables.heads.event(3)


@pytest.mark.parametrize("processes", [0, 2])
@pytest.mark.parametrize("often", [1, 99])
def test_a_wrong_bundle_in_the_middle_of_an_epoch_is_read_again(
    processes: int, often: int, tmp_path: Path
) -> None:
    """A proxy may have spoilt it once. The server is blamed for its file, and not the log for its records."""
    streams = story(*NAMED)
    for part in range(3):
        streams.put(*(b.mutation(f"user {part}.{number}") for number in range(180)))
    streams.epoch()
    left = often

    def spoilt(data: bytes) -> bytes:
        nonlocal left
        left -= 1
        return data if left < 0 else data[:40] + bytes([data[40] ^ 1]) + data[41:]

    tiles, ledger = changed(tiles_of(tmp_path, streams), "mutations/tile/entries/002", spoilt), new_ledger()
    with Verifiers(b.ORIGIN, processes, least=0) as verifiers:
        source = TiledReplay(tiles, ledger, lambda _: None, verifiers, Lag(lambda: 60.0, Clock()))
        if often == 1:
            assert [done.head.epoch for done in source.look()] == [1, 2, 3, 4]
        else:
            with pytest.raises(DivergenceError, match="are not those of its checkpoint"):
                list(source.look())


# --- checkpoints of different times -----------------------------------------------------------------


@pytest.mark.parametrize("ahead", ["heads", "mutations"])
def test_checkpoints_of_different_times(ahead: str, tmp_path: Path) -> None:
    streams = story(*NAMED)
    tiles = tiles_of(tmp_path, streams)
    old = {log: (tmp_path / log / "checkpoint").read_bytes() for log in ("heads", "mutations")}
    streams.put_user("dave")
    streams.epoch()
    exported(tmp_path, streams.log)
    behind = "mutations" if ahead == "heads" else "heads"
    changed(tiles, f"{behind}/checkpoint", lambda _: old[behind])
    ledger, clock = new_ledger(), Clock()
    lag = Lag(lambda: 60.0, clock)
    source = TiledReplay(tiles, ledger, lambda _: None, Verifiers.none(), lag)
    assert [done.head.epoch for done in source.look()] == [1, 2, 3]
    assert source.is_current is (ahead == "mutations")
    if ahead == "heads":
        # The server withholds records: it may be behind, but not for long.
        with pytest.raises(UnavailableError, match="records of epoch 4 are missing"):
            list(source.look())
        clock.now += 60.0
        with pytest.raises(DivergenceError, match="records of epoch 4 are missing at http://tiles"):
            list(source.look())
        assert not source.is_current
    else:
        assert list(source.look()) == []
    tiles.change = lambda _, data: data
    assert [done.head.epoch for done in source.look()] == [4]
    assert source.is_current
    source.close()
    assert ledger.committed == by_log(streams).committed


def test_a_log_of_mutations_that_ends_within_an_epoch_is_a_lie(tmp_path: Path) -> None:
    streams = story("alice", "bob")
    tiles = tiles_of(tmp_path, streams)
    # A directory signs such a checkpoint only on purpose.
    rewrite(tiles, "mutations", lambda leaves: leaves[:-1])
    assert "which is within epoch 2" in str(refused(tiles, new_ledger()))


# --- wrong files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log", "part"),
    [("heads", "0"), ("heads", "entries"), ("mutations", "0"), ("mutations", "1"), ("mutations", "entries")],
)
def test_every_wrong_file_is_found(log: str, part: str, tmp_path: Path) -> None:
    streams = story("alice")
    if log == "mutations":
        for start in range(0, 600, 150):
            streams.put(*(b.mutation(f"user{number}") for number in range(start, start + 150)))
        streams.epoch()
    tiles = tiles_of(tmp_path, streams)
    for change in (
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data[:-1],
        lambda data: data + b"\x00",
        lambda data: b"",
    ):
        error = refused(changed(tiles, f"{log}/tile/{part}", change), new_ledger())
        assert f"log of {log}: the tiles at http://tiles are not those of its checkpoint" in str(error)
        assert error.exit_code == 4


@pytest.mark.parametrize("log", ["heads", "mutations"])
def test_wrong_checkpoints(log: str, tmp_path: Path) -> None:
    tiles, name = tiles_of(tmp_path, story(*NAMED)), f"{log}/checkpoint"
    cases: list[tuple[Callable[[bytes], bytes], type[KtError], str]] = [
        (lambda _: b"<html>welcome</html>", MisfitError, "is no checkpoint"),
        (lambda _: b"", MisfitError, "is no checkpoint"),
        (resigned(log, "signer", root=bytes(32)), DivergenceError, "are not those of its checkpoint"),
        (resigned(log, "stranger"), VerificationError, "no signature is by a known key"),
        (resigned("queue", "signer"), VerificationError, f"is not signed by {b.ORIGIN}/{log}"),
        (
            lambda data: data.replace(b.ORIGIN.encode(), b"other.example.org/people"),
            VerificationError,
            f"is of the log other.example.org/people/{log}, not of {b.ORIGIN}/{log}: check the address",
        ),
        (_broken, VerificationError, "does not verify"),
        (resigned(log, "signer", size=0, root=bytes(32)), DivergenceError, "verified here"),
    ]
    for change, kind, message in cases:
        error = refused(changed(tiles, name, change), new_ledger())
        assert message in str(error)
        assert isinstance(error, kind) or error.exit_code == kind.exit_code


def _broken(data: bytes) -> bytes:
    note = parse_note(data)
    (line,) = note.signatures
    other = bytes([line.signature[0] ^ 1]) + line.signature[1:]
    return replace(note, signatures=(replace(line, signature=other),)).encode().encode()


def test_a_server_without_files_is_away(tmp_path: Path) -> None:
    error = refused(FolderTiles(tmp_path), new_ledger())
    assert isinstance(error, UnavailableError)
    assert error.exit_code == 7


def test_another_first_config_is_another_directory(tmp_path: Path) -> None:
    stranger = b.public(b.private_key("stranger"))
    ledger = Ledger(MemoryStore(FAMILIES), b.ORIGIN, stranger)
    assert "never was a signer key of" in str(refused(tiles_of(tmp_path, story("alice")), ledger))


def constantly(data: bytes) -> Callable[[bytes], bytes]:
    return lambda _: data


def test_no_changed_byte_leads_to_another_state(tmp_path: Path) -> None:
    streams = story("alice", "bob")
    tiles, must = tiles_of(tmp_path, streams), by_log(streams).committed
    replay(tiles, new_ledger())
    for name in sorted(set(tiles.read)):
        data = (tmp_path / name).read_bytes()
        for at in range(0, len(data), 11):
            other = data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]
            ledger = new_ledger()
            with suppress(KtError):
                replay(changed(tiles, name, constantly(other)), ledger)
                # The name of a key is not signed; what it signs is.
                assert ledger.committed == must
            assert ledger.committed.epoch in (0, 1) or ledger.committed == must
