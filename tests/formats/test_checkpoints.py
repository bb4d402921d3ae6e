"""Checkpoints: the specification's example, strict parsing, and the refusal of every change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_es.crypto.signatures import ECDSA_P256, ED25519, PrivateKey
from kt_es.errors import MalformedError, VerificationError
from kt_es.formats.heads import (
    MAX_LOG_SIZE,
    Checkpoint,
    heads_origin,
    mutations_origin,
    open_checkpoint,
    sign_checkpoint,
)
from kt_es.formats.notes import Note, NoteSignature, parse_note, sign_note, sign_text

# https://c2sp.org/tlog-checkpoint, whose key is not published.
C2SP_TEXT = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
C2SP_CHECKPOINT = C2SP_TEXT + (
    "\n— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzG"
    "ku9nTo+zyWE+xeMcTOAYQ8=\n"
)

ORIGIN = heads_origin("kt.example.org/people")
KEY = PrivateKey.from_seed(ED25519, bytes(range(32)))
OTHER = PrivateKey.from_seed(ED25519, bytes(range(1, 33)))
CHECKPOINT = Checkpoint(ORIGIN, 1234, bytes(range(32)))
SIGNED = sign_checkpoint(CHECKPOINT, ORIGIN, KEY)

# Pinned: what every version of kt-es must write for this key and this log.
PINNED = (
    "kt.example.org/people/heads\n"
    "1234\n"
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
    "\n"
    "— kt.example.org/people/heads "
    "xGz5NuhpASWp3ZZ0h86J8sLwlKCFdze6YMFnWv6v4FLkDP8reuSoPnP5NXARnGZnHU5NPHscWfJOunoGLvI9uUdNjwI=\n"
)


class TestSpecification:
    def test_the_example_is_read_and_written(self) -> None:
        note = parse_note(C2SP_CHECKPOINT)
        checkpoint = Checkpoint.parse(note.text)
        assert checkpoint.origin == "example.com/behind-the-sofa"
        assert checkpoint.size == 20852163
        assert checkpoint.root.hex() == "0ac5186a91863e8e1d90c808014aa89bf5da8e3ee1d9f07630f0378f68f1ab62"
        assert checkpoint.encode() == C2SP_TEXT
        assert note.encode() == C2SP_CHECKPOINT

    def test_our_own_bytes_are_pinned(self) -> None:
        assert SIGNED == PINNED

    def test_origins(self) -> None:
        assert heads_origin("kt.example.org/people") == "kt.example.org/people/heads"
        assert mutations_origin("kt.example.org/people") == "kt.example.org/people/mutations"


class TestParsing:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "\n",
            "\n\n\n",
            C2SP_TEXT[:-1],
            C2SP_TEXT + "\n",
            C2SP_TEXT + "extension\n",
            "\n" + C2SP_TEXT,
            C2SP_TEXT.removeprefix("example.com/behind-the-sofa"),
            C2SP_TEXT.replace("\n", "\r\n"),
            C2SP_TEXT.replace("=", ""),
            C2SP_TEXT.replace("2I=", "2J="),
            C2SP_TEXT.replace("CsUY", ""),
            C2SP_TEXT.replace("CsUY", "AAAACsUY"),
            C2SP_TEXT.replace("CsUY", "CsU "),
            C2SP_TEXT.replace("/Xajj7h2", "_Xajj7h2"),
            C2SP_TEXT.replace("example.com", "example\x00com"),
        ],
    )
    def test_malformed_texts(self, text: str) -> None:
        with pytest.raises(MalformedError) as caught:
            Checkpoint.parse(text)
        assert caught.value.what == "checkpoint"

    @pytest.mark.parametrize(
        "size",
        [
            *("", " ", "-1", "-0", "+1", "00", "01", "1_0", "1.0", "1e3", "0x1", " 1", "1 ", "１", "٣", "²"),
            str(MAX_LOG_SIZE + 1),
            pytest.param("1" + "0" * 5000, id="5001 digits"),
        ],
    )
    def test_sizes_that_are_no_decimal_number(self, size: str) -> None:
        with pytest.raises(MalformedError, match="size"):
            Checkpoint.parse(C2SP_TEXT.replace("20852163", size))

    @pytest.mark.parametrize("size", [0, 1, 10, MAX_LOG_SIZE])
    def test_sizes(self, size: int) -> None:
        checkpoint = Checkpoint(ORIGIN, size, bytes(32))
        assert Checkpoint.parse(checkpoint.encode()) == checkpoint

    @pytest.mark.parametrize(
        ("origin", "size", "root"),
        [
            ("", 0, bytes(32)),
            ("a\nb", 0, bytes(32)),
            ("a\x00", 0, bytes(32)),
            (ORIGIN, -1, bytes(32)),
            (ORIGIN, MAX_LOG_SIZE + 1, bytes(32)),
            (ORIGIN, 0, bytes(31)),
            (ORIGIN, 0, bytes(33)),
        ],
    )
    def test_values_that_no_checkpoint_has(self, origin: str, size: int, root: bytes) -> None:
        with pytest.raises(MalformedError):
            Checkpoint(origin, size, root)

    @given(
        st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1),
        st.integers(0, MAX_LOG_SIZE),
        st.binary(min_size=32, max_size=32),
    )
    def test_round_trip(self, origin: str, size: int, root: bytes) -> None:
        checkpoint = Checkpoint(origin, size, root)
        assert Checkpoint.parse(checkpoint.encode()) == checkpoint

    @given(st.text(st.sampled_from("a0129=/+A\n "), max_size=60))
    def test_whatever_parses_encodes_to_itself(self, text: str) -> None:
        try:
            checkpoint = Checkpoint.parse(text)
        except MalformedError:
            return
        assert checkpoint.encode() == text


class TestOpening:
    def refused(self, encoded: str, origin: str, *keys: bytes) -> str:
        with pytest.raises(VerificationError) as caught:
            open_checkpoint(encoded, origin, keys)
        assert caught.value.step == "checkpoint"
        return caught.value.problem

    def test_signed_and_opened(self) -> None:
        assert open_checkpoint(SIGNED, ORIGIN, [KEY.public]) == CHECKPOINT
        assert open_checkpoint(SIGNED.encode(), ORIGIN, [OTHER.public, KEY.public]) == CHECKPOINT

    def test_every_changed_byte(self) -> None:
        encoded = SIGNED.encode()
        for n in range(len(encoded)):
            for value in range(256):
                if value != encoded[n]:
                    changed = encoded[:n] + bytes([value]) + encoded[n + 1 :]
                    with pytest.raises((MalformedError, VerificationError)):
                        open_checkpoint(changed, ORIGIN, [KEY.public])

    def test_every_missing_or_doubled_byte(self) -> None:
        encoded = SIGNED.encode()
        for n in range(len(encoded)):
            for changed in (encoded[:n] + encoded[n + 1 :], encoded[:n] + encoded[n : n + 1] + encoded[n:]):
                with pytest.raises((MalformedError, VerificationError)):
                    open_checkpoint(changed, ORIGIN, [KEY.public])

    def test_every_truncation(self) -> None:
        for n in range(len(SIGNED)):
            with pytest.raises(MalformedError):
                open_checkpoint(SIGNED[:n], ORIGIN, [KEY.public])

    def test_signed_by_others(self) -> None:
        assert "known" in self.refused(SIGNED, ORIGIN)
        assert "known" in self.refused(SIGNED, ORIGIN, OTHER.public)

    def test_the_other_log(self) -> None:
        """The key signs both logs: neither may be shown as the other."""
        mutations = mutations_origin("kt.example.org/people")
        assert "known" in self.refused(SIGNED, mutations, KEY.public)
        in_other_name = sign_note(CHECKPOINT.encode(), mutations, KEY)
        assert "log" in self.refused(in_other_name, mutations, KEY.public)

    def test_cosignatures_are_not_looked_at(self) -> None:
        text = CHECKPOINT.encode()
        signatures = (
            NoteSignature("witness.example.org", b"\x01\x02\x03\x04", bytes(72)),
            sign_text(text, ORIGIN, OTHER),
            sign_text(text, ORIGIN, KEY),
        )
        assert open_checkpoint(Note(text, signatures).encode(), ORIGIN, [KEY.public]) == CHECKPOINT

    @pytest.mark.parametrize("body", ["x\n", C2SP_TEXT + "extension\n", C2SP_TEXT.replace("2085", "0")])
    def test_signed_but_no_checkpoint(self, body: str) -> None:
        with pytest.raises(MalformedError, match="checkpoint"):
            open_checkpoint(sign_note(body, ORIGIN, KEY), ORIGIN, [KEY.public])

    @pytest.mark.parametrize("name", ["", "a b", "a+b"])
    def test_names_that_no_key_has(self, name: str) -> None:
        with pytest.raises(MalformedError, match="key name"):
            sign_checkpoint(CHECKPOINT, name, KEY)

    def test_signing_needs_an_ed25519_key(self) -> None:
        with pytest.raises(MalformedError, match="Ed25519"):
            sign_checkpoint(CHECKPOINT, ORIGIN, PrivateKey.from_seed(ECDSA_P256, bytes(range(32))))
