"""Cosignatures: the specification's example, pinned bytes, the refusal of every change, and one in Go."""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_es.crypto.signatures import ECDSA_P256, ED25519, PrivateKey
from kt_es.errors import MalformedError, VerificationError
from kt_es.formats.cosignatures import (
    MAX_TIMESTAMP,
    CosignerKey,
    cosign,
    cosigner_key,
    read_cosigned,
    verify_cosignature,
)
from kt_es.formats.heads import Checkpoint, open_checkpoint, sign_checkpoint
from kt_es.formats.notes import NoteSignature, parse_note, verifier_key
from tests.e2e.go_modules import fetch_modules, go

LOG = "kt.example.org/people/heads"
NAME = "witness.example.org/w1"
LOG_KEY = PrivateKey.from_seed(ED25519, bytes(range(32)))
SEED = bytes(range(1, 33))
KEY = PrivateKey.from_seed(ED25519, SEED)
OTHER = PrivateKey.from_seed(ED25519, bytes(range(2, 34)))
COSIGNER = CosignerKey(NAME, KEY.public)
TIME = 1679315147
CHECKPOINT = Checkpoint(LOG, 1234, bytes(range(32)))
TEXT = CHECKPOINT.encode()
SIGNED = sign_checkpoint(CHECKPOINT, LOG, LOG_KEY)
LINE = cosign(TEXT, NAME, KEY, TIME)

# Pinned: what every version of kt-es must write for this key, this checkpoint and this time.
PINNED_VKEY = "witness.example.org/w1+943db5a3+BHm1Vi6P5lT5QHixEuipi6eQH4U65pW+1+DjkQutBJZk"
PINNED = (
    "— witness.example.org/w1 "
    "lD21owAAAABkGFDLOwcTepeXZhd/p6PtdfZ2XQ3DzYV59tKkzjA93vjy6MPY"
    "5JXI+24So/eYMpEPSjJgn7Q9v8kVOq1NCcD69m1/AA==\n"
)

# https://c2sp.org/tlog-cosignature, whose keys are not published.
C2SP_NOTE = """example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==
"""  # noqa: E501

texts = st.builds(
    Checkpoint,
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40),
    st.integers(0, 2**63 - 1),
    st.binary(min_size=32, max_size=32),
).map(Checkpoint.encode)
times = st.integers(1, MAX_TIMESTAMP)


def signature_of(line: str) -> NoteSignature:
    (signature,) = parse_note(TEXT + "\n" + line).signatures
    return signature


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(VerificationError) as caught:
        call()
    assert caught.value.step == "cosignature"
    return caught.value.problem


class TestSpecification:
    def test_the_shape_is_that_of_the_example(self) -> None:
        _, theirs = parse_note(C2SP_NOTE).signatures
        ours = signature_of(cosign(TEXT, theirs.name, KEY, TIME))
        assert len(theirs.signature) == len(ours.signature)
        assert theirs.signature[:8] == ours.signature[:8] == TIME.to_bytes(8)

    def test_the_signed_message(self) -> None:
        signature = signature_of(LINE).signature
        message = f"cosignature/v1\ntime 1679315147\n{TEXT}".encode()
        assert signature[8:] == KEY.sign(message)

    def test_our_own_bytes_are_pinned(self) -> None:
        assert (cosigner_key(NAME, KEY.public), LINE) == (PINNED_VKEY, PINNED)

    def test_one_key_has_another_hash_as_a_cosigner(self) -> None:
        assert COSIGNER.key_hash != verifier_key(NAME, KEY.public).key_hash


class TestKeys:
    def test_every_key_is_read_back(self) -> None:
        assert CosignerKey.parse(COSIGNER.vkey) == COSIGNER

    @given(st.text(st.sampled_from("ab./é-"), min_size=1), st.binary(min_size=32, max_size=32))
    def test_round_trip(self, name: str, key: bytes) -> None:
        assert CosignerKey.parse(cosigner_key(name, key)) == CosignerKey(name, key)

    @pytest.mark.parametrize(
        "vkey",
        [
            "",
            NAME,
            COSIGNER.vkey.upper(),
            COSIGNER.vkey[:-1],
            COSIGNER.vkey + "A",
            COSIGNER.vkey.replace("w1", "w2"),
            COSIGNER.vkey.replace("w1", "w 1"),
            verifier_key(NAME, KEY.public).encode(),
            f"{NAME}+00000000+",
            f"{NAME}+{COSIGNER.key_hash.hex()}+{base64.b64encode(bytes([4]) + bytes(31)).decode()}",
        ],
    )
    def test_no_other_text_is_one(self, vkey: str) -> None:
        with pytest.raises(MalformedError):
            CosignerKey.parse(vkey)

    def test_a_key_of_a_log_is_refused_by_its_type(self) -> None:
        with pytest.raises(MalformedError, match="signature type is 0x01"):
            CosignerKey.parse(verifier_key(NAME, KEY.public).encode())


class TestSigning:
    @given(texts, times)
    def test_what_is_cosigned_verifies(self, text: str, timestamp: int) -> None:
        line = cosign(text, NAME, KEY, timestamp)
        found = read_cosigned(text + "\n" + line, [COSIGNER])
        assert (found.cosigners, found.names) == ({COSIGNER: timestamp}, {NAME: timestamp})

    @pytest.mark.parametrize("timestamp", [-1, 0, MAX_TIMESTAMP + 1])
    def test_times_that_are_none(self, timestamp: int) -> None:
        with pytest.raises(MalformedError, match="time"):
            cosign(TEXT, NAME, KEY, timestamp)

    @pytest.mark.parametrize("text", ["", "a", TEXT[:-1], "a\rb\n", "\ud800\n"])
    def test_texts_that_no_note_has(self, text: str) -> None:
        with pytest.raises(MalformedError):
            cosign(text, NAME, KEY, TIME)

    def test_only_ed25519_keys_cosign(self) -> None:
        with pytest.raises(MalformedError, match="Ed25519"):
            cosign(TEXT, NAME, PrivateKey.from_seed(ECDSA_P256, SEED), TIME)


class TestReading:
    def test_the_log_is_verified_beside_its_cosigners(self) -> None:
        assert open_checkpoint(SIGNED + LINE, LOG, [LOG_KEY.public]) == CHECKPOINT
        assert read_cosigned(SIGNED + LINE, [COSIGNER]).names == {NAME: TIME}

    def test_every_changed_bit(self) -> None:
        encoded = (TEXT + "\n" + LINE).encode()
        for n in range(len(encoded)):
            for bit in range(8):
                changed = encoded[:n] + bytes([encoded[n] ^ 1 << bit]) + encoded[n + 1 :]
                try:
                    found = read_cosigned(changed, [COSIGNER]).cosigners
                except (MalformedError, VerificationError):
                    continue
                assert found == {}, "a change in name or key hash makes it the line of somebody unknown"

    @given(texts, texts, times, times)
    def test_it_is_good_for_one_text_and_one_time(self, text: str, other: str, at: int, then: int) -> None:
        signature = parse_note(text + "\n" + cosign(text, NAME, KEY, at)).signatures[0]
        if other != text:
            refused(lambda: verify_cosignature(other, signature, COSIGNER))
        if then != at:
            moved = NoteSignature(NAME, COSIGNER.key_hash, then.to_bytes(8) + signature.signature[8:])
            refused(lambda: verify_cosignature(text, moved, COSIGNER))
        assert verify_cosignature(text, signature, COSIGNER) == at

    def test_unknown_cosigners_are_ignored_whatever_they_hold(self) -> None:
        junk = NoteSignature("somebody.example.org", b"\x01\x02\x03\x04", b"junk").line()
        same_name = NoteSignature(NAME, b"\x01\x02\x03\x04", b"junk").line()
        same_hash = NoteSignature("somebody.example.org", COSIGNER.key_hash, b"junk").line()
        assert read_cosigned(SIGNED + junk + same_name + same_hash + LINE, [COSIGNER]).names == {NAME: TIME}
        assert read_cosigned(SIGNED + junk, [COSIGNER]).names == {}

    def test_a_false_line_of_a_known_cosigner_spoils_the_note(self) -> None:
        valid = signature_of(LINE).signature
        for false in (
            signature_of(cosign(TEXT, NAME, OTHER, TIME)).signature,
            valid[8:],
            valid[:-1],
            valid + b"\x00",
            bytes(8) + valid[8:],
            b"\xff" * 8 + valid[8:],
            valid[:8] + bytes(64),
        ):
            line = NoteSignature(NAME, COSIGNER.key_hash, false).line()
            spoiled = SIGNED + LINE + line
            assert NAME in refused(partial(read_cosigned, spoiled, [COSIGNER]))

    def test_a_signature_of_another_type_is_none(self) -> None:
        # The same key signs the note itself, as a log does.
        as_log = NoteSignature(NAME, COSIGNER.key_hash, TIME.to_bytes(8) + KEY.sign(TEXT.encode()))
        refused(lambda: verify_cosignature(TEXT, as_log, COSIGNER))

    def test_the_latest_time_of_each_cosigner(self) -> None:
        other = CosignerKey("another.example.org", OTHER.public)
        lines = [cosign(TEXT, NAME, KEY, at) for at in (TIME + 1, TIME + 3, TIME + 2)]
        note = SIGNED + "".join(lines) + cosign(TEXT, other.name, OTHER, 5)
        assert read_cosigned(note, [COSIGNER, other]).cosigners == {COSIGNER: TIME + 3, other: 5}
        assert read_cosigned(note, [other]).cosigners == {other: 5}

    def test_two_keys_of_one_name(self) -> None:
        second = CosignerKey(NAME, OTHER.public)
        note = SIGNED + LINE + cosign(TEXT, NAME, OTHER, TIME + 1)
        found = read_cosigned(note, [COSIGNER, second])
        assert found.cosigners == {COSIGNER: TIME, second: TIME + 1}
        assert found.names == {NAME: TIME + 1}

    def test_another_key_is_named(self) -> None:
        other = CosignerKey("another.example.org", OTHER.public)
        assert "another.example.org" in refused(lambda: verify_cosignature(TEXT, signature_of(LINE), other))


@pytest.fixture(scope="module")
def cosigner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program ``tests/go/tiles/cosigner``."""
    source = tmp_path_factory.mktemp("go") / "tiles"
    shutil.copytree(Path(__file__).parents[1] / "go/tiles", source)
    fetch_modules(source)
    built = go(source, "build", "-o", "made", "./cosigner")
    assert built.returncode == 0, built.stderr
    return source / "made"


@pytest.mark.e2e
def test_an_implementation_in_go_makes_and_takes_the_same(cosigner: Path) -> None:
    def run(what: str, note: str, seed: bytes = SEED) -> subprocess.CompletedProcess[str]:
        words = [str(cosigner), what, NAME, seed.hex()]
        return subprocess.run(words, input=note, capture_output=True, text=True, timeout=60, check=False)

    theirs = run("sign", SIGNED).stdout
    when = read_cosigned(theirs, [COSIGNER]).names[NAME]
    # Ed25519 is deterministic: at the same time both write the same line.
    assert theirs == SIGNED + cosign(TEXT, NAME, KEY, when)
    assert run("verify", SIGNED + LINE).stdout == f"{TIME} {COSIGNER.vkey}\n"
    later = NoteSignature(NAME, COSIGNER.key_hash, (TIME + 1).to_bytes(8) + signature_of(LINE).signature[8:])
    assert "invalid signature" in run("verify", SIGNED + later.line()).stderr
