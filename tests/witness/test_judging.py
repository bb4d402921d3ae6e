"""What a witness decides, against a plain model: a list of leaves for each log, and proofs by RFC 6962."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.errors import MalformedError
from kt_es.formats.cosignatures import read_cosigned
from kt_es.formats.heads import Checkpoint, sign_checkpoint
from kt_es.formats.notes import NoteSignature, sign_note, verifier_key
from kt_es.formats.witnessing import (
    MAX_PROOF,
    MAX_REQUEST,
    SIZE_MEDIA,
    AddCheckpoint,
    origin_hash,
    parse_size,
)
from kt_es.witness.state import opened
from kt_es.witness.witness import Reply, Witness
from tests.builders import private_key
from tests.reference import naive_log

NAME = "witness.example.org/w1"
ORIGIN, OTHER = "log.example.org/one", "log.example.org/two"
KEY, SECOND = private_key("log"), private_key("second")
LOGS = {
    ORIGIN: (verifier_key(ORIGIN, KEY.public), verifier_key(ORIGIN, SECOND.public)),
    OTHER: (verifier_key(OTHER, KEY.public),),
}
NOW = 1_700_000_000


def leaves(count: int, fork: int = 0) -> list[bytes]:
    """The leaf hashes of a log; those of another ``fork`` differ from number 3 on."""
    return [log_leaf_hash(b"%d of %d" % (number, fork if number >= 3 else 0)) for number in range(count)]


def note_of(size: int, fork: int = 0, origin: str = ORIGIN, more: str = "") -> str:
    text = Checkpoint(origin, size, naive_log.root(leaves(size, fork))).encode() + more
    return sign_note(text, origin, KEY)


def request(old: int, size: int, fork: int = 0, origin: str = ORIGIN) -> bytes:
    """A request of an honest client of the log ``fork``."""
    proof = naive_log.consistency(old, leaves(size, fork)) if 0 < old <= size else []
    return AddCheckpoint(old, tuple(proof), note_of(size, fork, origin)).encode()


@dataclass
class Clock:
    now: int = NOW

    def __call__(self) -> float:
        return self.now


def made(folder: Path, clock: Clock | None = None) -> Witness:
    with opened(folder, NAME) as identity:
        return Witness(identity, LOGS, clock or Clock())


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return made(tmp_path / "witness")


def times(witness: Witness, note: str, reply: Reply) -> dict[str, int]:
    assert reply.status == 200, reply
    return dict(read_cosigned(note.encode() + reply.body, [witness.identity.public]).names)


class TestStatusCodes:
    def test_200_is_a_cosignature_and_kept_for_monitors(self, witness: Witness) -> None:
        for old, size in ((0, 3), (3, 3), (3, 8)):
            reply = witness.add_checkpoint(request(old, size))
            assert times(witness, note_of(size), reply) == {NAME: NOW}
            shown = witness.monitored(origin_hash(ORIGIN))
            assert shown.body == note_of(size).encode() + reply.body

    def test_the_empty_log_is_one(self, witness: Witness) -> None:
        times(witness, note_of(0), witness.add_checkpoint(request(0, 0)))
        times(witness, note_of(5), witness.add_checkpoint(request(0, 5)))

    def test_an_empty_log_has_one_root(self, witness: Witness) -> None:
        note = sign_checkpoint(Checkpoint(ORIGIN, 0, bytes(32)), ORIGIN, KEY)
        assert witness.add_checkpoint(AddCheckpoint(0, (), note).encode()).status == 409

    def test_400_for_what_is_no_request(self, witness: Witness) -> None:
        good = request(3, 8).decode()
        for bad in (
            b"",
            b"\xff",
            b"old 0\n",
            good.replace("old 3", "old 03"),
            good.replace("old 3", "old -3"),
            good.replace("old 3", "old"),
            good.replace("old 3\n", "old 3\r\n"),
            good.replace("=\n", "\n", 1),
            good.replace("\n\n", "\n", 1),
            good.replace("\n", "\n\n", 1),
            good.replace(ORIGIN, ""),
            good + "x" * MAX_REQUEST,
            "old 9223372036854775808\n\n" + note_of(3),
            "old 0\n" + "A" * 43 + "=\n" * (MAX_PROOF + 1) + "\n" + note_of(3),
        ):
            reply = witness.add_checkpoint(bad if isinstance(bad, bytes) else bad.encode())
            assert reply.status == 400, bad

    def test_400_for_an_old_size_beyond_the_checkpoint(self, witness: Witness) -> None:
        assert witness.add_checkpoint(request(9, 8)).status == 400

    def test_404_for_another_log(self, witness: Witness) -> None:
        assert witness.add_checkpoint(request(0, 3, origin="log.example.org/three")).status == 404

    def test_403_without_a_valid_signature_of_the_log(self, witness: Witness) -> None:
        text = Checkpoint(ORIGIN, 3, naive_log.root(leaves(3))).encode()
        by_stranger = sign_note(text, ORIGIN, private_key("mallory"))
        other_name = sign_note(text, OTHER, KEY)
        false = NoteSignature(ORIGIN, LOGS[ORIGIN][0].key_hash, bytes(64)).line()
        for note in (by_stranger, other_name, f"{text}\n{false}", note_of(3) + false):
            assert witness.add_checkpoint(AddCheckpoint(0, (), note).encode()).status == 403

    def test_every_key_of_a_log_counts_and_strangers_are_left_out(self, witness: Witness) -> None:
        text = Checkpoint(ORIGIN, 3, naive_log.root(leaves(3))).encode()
        note = sign_note(text, ORIGIN, SECOND)
        junk = NoteSignature("somebody.example.org", b"abcd", b"junk").line()
        times(witness, note, witness.add_checkpoint(AddCheckpoint(0, (), note + junk).encode()))
        assert b"somebody" not in witness.monitored(origin_hash(ORIGIN)).body

    def test_409_names_the_size_that_was_cosigned(self, witness: Witness) -> None:
        assert parse_size(witness.add_checkpoint(request(2, 8)).body) == 0
        witness.add_checkpoint(request(0, 5))
        for old in (0, 4, 6):
            reply = witness.add_checkpoint(request(old, 8))
            assert (reply.status, reply.media, reply.body) == (409, SIZE_MEDIA, b"5\n")

    def test_409_for_another_root_of_that_size(self, witness: Witness) -> None:
        witness.add_checkpoint(request(0, 5))
        reply = witness.add_checkpoint(request(5, 5, fork=1))
        assert (reply.status, reply.media == SIZE_MEDIA) == (409, False)

    def test_422_for_a_proof_that_proves_nothing(self, witness: Witness) -> None:
        witness.add_checkpoint(request(0, 5))
        good = AddCheckpoint.parse(request(5, 8))
        for proof in (
            (),
            good.proof[:-1],
            good.proof[::-1],
            (*good.proof, bytes(32)),
            (bytes(32), *good.proof[1:]),
        ):
            assert witness.add_checkpoint(AddCheckpoint(5, proof, good.note).encode()).status == 422
        fork = AddCheckpoint.parse(request(5, 8, fork=1))
        assert witness.add_checkpoint(fork.encode()).status == 422
        for size in (5, 8):
            bad = AddCheckpoint(5 if size == 5 else 0, (bytes(32),), note_of(size, origin=ORIGIN)).encode()
            assert witness.add_checkpoint(bad).status == (422 if size == 5 else 409)
        first = AddCheckpoint(0, (bytes(32),), note_of(8, origin=OTHER)).encode()
        assert witness.add_checkpoint(first).status == 422

    def test_404_for_monitors_of_what_was_never_cosigned(self, witness: Witness) -> None:
        assert witness.monitored(origin_hash(ORIGIN)).status == 404

    def test_extension_lines_are_cosigned_with_the_checkpoint(self, witness: Witness) -> None:
        note = note_of(3, more="anything else\n")
        times(witness, note, witness.add_checkpoint(AddCheckpoint(0, (), note).encode()))


def test_a_repetition_within_a_second_costs_no_signature(tmp_path: Path) -> None:
    clock = Clock()
    witness = made(tmp_path / "witness", clock)
    first = witness.add_checkpoint(request(0, 3))
    clock.now += 1
    assert witness.add_checkpoint(request(3, 3)) == first
    clock.now += 1
    later = witness.add_checkpoint(request(3, 3))
    assert times(witness, note_of(3), later) == {NAME: NOW + 2}
    # A clock that went back makes a new cosignature, of which the client may think what it likes.
    clock.now -= 100
    assert times(witness, note_of(3), witness.add_checkpoint(request(3, 3))) == {NAME: NOW - 98}


def test_the_first_fork_is_kept_as_it_was_sent(tmp_path: Path) -> None:
    witness = made(tmp_path / "witness")
    witness.add_checkpoint(request(0, 5))
    fork, second = request(5, 8, fork=1), request(5, 8, fork=2)
    witness.add_checkpoint(fork)
    witness.add_checkpoint(second)
    (kept,) = (tmp_path / "witness" / "forks").iterdir()
    assert kept.read_bytes() == fork
    # Anybody can send a false proof, and it does not take the place of two roots of one size.
    proven = request(5, 5, fork=2)
    witness.add_checkpoint(proven)
    witness.add_checkpoint(request(5, 5, fork=1))
    assert sorted(path.read_bytes() for path in kept.parent.iterdir()) == sorted([fork, proven])


steps = st.tuples(
    st.sampled_from([ORIGIN, OTHER]),
    st.integers(0, 2),  # the fork
    st.integers(0, 12),  # old
    st.integers(0, 12),  # size
    st.sampled_from(["honest", "no proof", "cut", "restart"]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, max_size=30))
def test_whatever_is_asked_it_agrees_with_the_model(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[str, int, int, int, str]]
) -> None:
    folder = tmp_path_factory.mktemp("model") / "witness"
    witness = made(folder)
    model: dict[str, list[bytes]] = {}
    for origin, fork, old, size, how in asked:
        if how == "restart":
            witness = made(folder)
        sent = AddCheckpoint.parse(request(old, size, fork, origin))
        if how == "no proof":
            sent = AddCheckpoint(sent.old, (), sent.note)
        elif how == "cut":
            sent = AddCheckpoint(sent.old, sent.proof[:-1], sent.note)
        known, new = model.get(origin, []), leaves(size, fork)
        status = 200
        if old > size:
            status = 400
        elif old != len(known) or (size == old and known != new):
            status = 409
        elif known != new[:old] or (0 < old < size and list(sent.proof) != naive_log.consistency(old, new)):
            status = 422
        reply = witness.add_checkpoint(sent.encode())
        assert reply.status == status
        if status == 200:
            model[origin] = new
            times(witness, sent.note, reply)


@given(st.integers(0, 2**63 - 1), st.lists(st.binary(min_size=32, max_size=32), max_size=MAX_PROOF))
def test_requests_are_read_back(old: int, proof: list[bytes]) -> None:
    sent = AddCheckpoint(old, tuple(proof), note_of(3))
    assert AddCheckpoint.parse(sent.encode()) == sent


@given(st.text(st.sampled_from("old 0123\n=A+/x"), max_size=40))
def test_whatever_parses_encodes_to_itself(text: str) -> None:
    try:
        found = AddCheckpoint.parse(text.encode())
    except MalformedError:
        return
    assert found.encode() == text.encode()


@pytest.mark.parametrize(
    "body", [b"", b"5", b"05\n", b"-1\n", b"5\n\n", b"1_0\n", b"9" * 30 + b"\n", b"\xff\n"]
)
def test_sizes_that_are_none(body: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_size(body)
