"""Signed notes: the examples of specification and Go, strict parsing, and who is believed."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_es.crypto.signatures import ECDSA_P256, ED25519, PrivateKey
from kt_es.errors import MalformedError, VerificationError
from kt_es.formats.notes import (
    MAX_NOTE_SIZE,
    MAX_SIGNATURES,
    Note,
    NoteSignature,
    VerifierKey,
    decode_base64,
    parse_note,
    sign_note,
    sign_text,
    verifier_key,
    verify_note,
)

# golang.org/x/mod/sumdb/note, package documentation.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
)
GO_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6Ryy"
    "BwJnAM=\n"
)

# https://c2sp.org/signed-note, whose key is not published.
C2SP_TEXT = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n"
C2SP_NOTE = C2SP_TEXT + (
    "\n— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcX"
    "xj99ihAQwaqP3ZekRwNtIc=\n"
)

NAME = "kt.example.org/people/heads"
TEXT = "some text\n"
KEY = PrivateKey.from_seed(ED25519, bytes(range(32)))
OTHER = PrivateKey.from_seed(ED25519, bytes(range(1, 33)))
NOTE = sign_note(TEXT, NAME, KEY)
VKEY = verifier_key(NAME, KEY.public)


class TestPublishedExamples:
    def test_go_signs_the_same(self) -> None:
        key = PrivateKey.from_seed(ED25519, GO_SEED)
        assert verifier_key("PeterNeumann", key.public).encode() == GO_KEY
        assert sign_note(GO_TEXT, "PeterNeumann", key) == GO_TEXT + "\n" + GO_LINE

    def test_go_verifies(self) -> None:
        note = verify_note(GO_TEXT + "\n" + GO_LINE, [VerifierKey.parse(GO_KEY)])
        assert note.text == GO_TEXT
        assert [signature.name for signature in note.signatures] == ["PeterNeumann"]

    def test_c2sp_with_an_empty_line_in_the_text(self) -> None:
        note = parse_note(C2SP_NOTE)
        assert note.text == C2SP_TEXT
        assert note.encode() == C2SP_NOTE
        (signature,) = note.signatures
        assert signature.name == "quasimodo.example/salvatore"
        assert signature.key_hash.hex() == "367ba04b"
        assert len(signature.signature) == 64


class TestParsing:
    @pytest.mark.parametrize(
        "encoded",
        [
            "",
            "\n",
            "\n\n",
            TEXT,
            TEXT + "\n",
            NOTE[:-1],
            NOTE + "\n",
            NOTE + "\n\n",
            NOTE + "x\n",
            NOTE.replace("\n\n", "\n"),
            NOTE.replace("— ", "- "),
            NOTE.replace("— ", "—"),
            NOTE.replace("— ", "—  "),
            NOTE.replace("— ", " — "),
            NOTE.replace(NAME, ""),
            NOTE.replace(NAME, "a b"),
            NOTE.replace(NAME, "a\u00a0b"),
            NOTE.replace(NAME, "a\u2028b"),
            NOTE.replace(NAME, "a+b"),
            NOTE.replace("=\n", "\n"),
            NOTE.replace("=\n", "==\n"),
            NOTE.replace("=\n", "= \n"),
            NOTE.replace("\n", "\r\n"),
            "\ufeff" + NOTE[:-1],
            TEXT.replace(" ", "\t") + NOTE[len(TEXT) :],
            TEXT.replace(" ", "\x00") + NOTE[len(TEXT) :],
            "\ud800" + NOTE,
            TEXT + "\n— a AAAA\n",
            TEXT + "\n— a AAAAAA==\n",
            TEXT + "\n— a \n",
            TEXT + "\n— a\n",
        ],
    )
    def test_malformed_notes(self, encoded: str) -> None:
        with pytest.raises(MalformedError):
            parse_note(encoded)

    @pytest.mark.parametrize(
        "encoded", [b"\xff" + NOTE.encode(), NOTE.encode()[:-1] + b"\xe2\n", b"\xc0\x80" + NOTE.encode()]
    )
    def test_invalid_utf8(self, encoded: bytes) -> None:
        with pytest.raises(MalformedError, match="UTF-8"):
            parse_note(encoded)

    def test_bytes_and_text_are_the_same(self) -> None:
        assert parse_note(NOTE.encode()) == parse_note(NOTE)

    def test_unused_bits_of_base64_are_zero(self) -> None:
        assert decode_base64("AA==", "test") == b"\x00"
        for encoded in ("AB==", "AA=", "AA", "AA==\n", "A A==", "AA==AA==", "Ａ", "-_8=", "AAA=="):
            with pytest.raises(MalformedError):
                decode_base64(encoded, "test")

    def test_the_last_empty_line_separates(self) -> None:
        for text in ("\n", "\n\n\n", "a\n\n", "a\n\nb\n", "\na\n", "— a AAAAAAA=\n", "a\n\n— b AAAAAAA=\n"):
            assert verify_note(sign_note(text, NAME, KEY), [VKEY]).text == text

    def test_number_of_signatures_is_bounded(self) -> None:
        line = NOTE[len(TEXT) + 1 :]
        assert len(parse_note(TEXT + "\n" + line * MAX_SIGNATURES).signatures) == MAX_SIGNATURES
        with pytest.raises(MalformedError, match="must have 1 to 64 signatures, has 65"):
            parse_note(TEXT + "\n" + line * (MAX_SIGNATURES + 1))

    def test_size_is_bounded(self) -> None:
        overhead = len(NOTE.encode()) - len(TEXT)
        largest = "x" * (MAX_NOTE_SIZE - overhead - 1) + "\n"
        encoded = sign_note(largest, NAME, KEY)
        assert len(encoded.encode()) == MAX_NOTE_SIZE
        assert verify_note(encoded, [VKEY]).text == largest
        with pytest.raises(MalformedError, match="must have at most 262144 bytes, has 262145"):
            parse_note("x" + encoded)
        with pytest.raises(MalformedError, match="must have at most 262144 bytes, has 262145"):
            sign_note("x" + largest, NAME, KEY)

    @given(st.text(max_size=200) | st.binary(max_size=200))
    def test_whatever_parses_encodes_to_itself(self, encoded: str | bytes) -> None:
        try:
            note = parse_note(encoded)
        except MalformedError:
            return
        assert note.encode() in (encoded, encoded if isinstance(encoded, str) else encoded.decode())

    @given(
        text=st.text(st.characters(exclude_categories=["Cc", "Cs"]) | st.just("\n"), max_size=80),
        name=st.text(st.characters(exclude_categories=["Cc", "Cs", "Z"], exclude_characters="+"), min_size=1),
    )
    def test_any_text_under_any_name(self, text: str, name: str) -> None:
        encoded = sign_note(text + "\n", name, KEY)
        assert verify_note(encoded.encode(), [verifier_key(name, KEY.public)]).text == text + "\n"
        assert VerifierKey.parse(verifier_key(name, KEY.public).encode()).name == name


class TestSigning:
    @pytest.mark.parametrize("text", ["", "no newline", "tab\there\n", "\x00\n", "\r\n", "\ud800\n"])
    def test_texts_that_no_note_has(self, text: str) -> None:
        with pytest.raises(MalformedError):
            sign_note(text, NAME, KEY)

    @pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\x00", "a\u3000b", "\ud800"])
    def test_names_that_no_key_has(self, name: str) -> None:
        with pytest.raises(MalformedError, match="key name"):
            sign_note(TEXT, name, KEY)

    def test_other_algorithms(self) -> None:
        with pytest.raises(MalformedError, match="Ed25519"):
            sign_note(TEXT, NAME, PrivateKey.from_seed(ECDSA_P256, bytes(range(32))))


class TestVerifierKeys:
    def test_round_trip(self) -> None:
        assert VerifierKey.parse(VKEY.encode()) == VKEY

    def test_every_changed_or_missing_character(self) -> None:
        encoded = VKEY.encode()
        for n in range(len(encoded)):
            for other in (
                encoded[:n] + chr(ord(encoded[n]) ^ 1) + encoded[n + 1 :],
                encoded[:n] + encoded[n + 1 :],
            ):
                with pytest.raises(MalformedError):
                    VerifierKey.parse(other)

    def test_upper_case_hash(self) -> None:
        with pytest.raises(MalformedError, match="hash"):
            VerifierKey.parse(GO_KEY.replace("c74f20a3", "C74F20A3"))

    @pytest.mark.parametrize("encoded", ["", "a", "a+b", "++", "a+00000000+", "a+00000000+AQ=="])
    def test_malformed(self, encoded: str) -> None:
        with pytest.raises(MalformedError):
            VerifierKey.parse(encoded)

    def test_unknown_types_and_sizes(self) -> None:
        with pytest.raises(MalformedError, match="0x02"):
            VerifierKey(NAME, 2, KEY.public)
        with pytest.raises(MalformedError, match="33 bytes"):
            VerifierKey(NAME, 1, KEY.public + b"\x00")


class TestBelief:
    def with_signatures(self, *signatures: NoteSignature) -> str:
        return Note(TEXT, signatures).encode()

    def refused(self, encoded: str, *keys: VerifierKey) -> str:
        with pytest.raises(VerificationError) as caught:
            verify_note(encoded, keys)
        assert caught.value.step == "note"
        return caught.value.problem

    def test_every_changed_byte(self) -> None:
        encoded = NOTE.encode()
        for n in range(len(encoded)):
            for bit in range(8):
                changed = encoded[:n] + bytes([encoded[n] ^ 1 << bit]) + encoded[n + 1 :]
                with pytest.raises((MalformedError, VerificationError)):
                    verify_note(changed, [VKEY])

    def test_unknown_signatures_are_kept_in_the_note_and_not_believed(self) -> None:
        own, other = sign_text(TEXT, NAME, KEY), sign_text(TEXT, "witness.example.org", OTHER)
        cosignature = NoteSignature("witness.example.org", b"\x01\x02\x03\x04", bytes(72))
        encoded = self.with_signatures(other, own, cosignature)
        assert parse_note(encoded).signatures == (other, own, cosignature)
        assert verify_note(encoded, [VKEY]).signatures == (own,)
        both = verify_note(encoded, [VKEY, verifier_key("witness.example.org", OTHER.public)])
        assert both.signatures == (other, own)

    def test_post_quantum_signatures_of_witnesses_fit_beside_ours(self) -> None:
        own = sign_text(TEXT, NAME, KEY)
        # ML-DSA-44: 2420 bytes, after a time of 8 (C2SP tlog-cosignature).
        for count in (16, MAX_SIGNATURES - 1):
            others = [
                NoteSignature(f"witness-{n}.example.org", n.to_bytes(4), bytes(2428)) for n in range(count)
            ]
            assert verify_note(self.with_signatures(*others, own), [VKEY]).signatures == (own,)

    def test_a_key_name_has_no_space_of_any_kind(self) -> None:
        for point in (9, 10, 0xB, 0xC, 0xD, 0x20, 0x85, 0xA0, 0x1680, 0x2000, 0x2028, 0x2029, 0x202F, 0x3000):
            with pytest.raises(MalformedError, match="key name"):
                NoteSignature(f"a{chr(point)}b", bytes(4), bytes(64))
        assert NoteSignature("a\u200bb", bytes(4), bytes(64)).name == "a\u200bb"

    def test_no_known_signature(self) -> None:
        assert "known" in self.refused(NOTE)
        assert "known" in self.refused(NOTE, verifier_key(NAME, OTHER.public))
        assert "known" in self.refused(NOTE, verifier_key("another.example.org", KEY.public))

    def test_a_false_signature_in_a_known_name_spoils_the_note(self) -> None:
        own, other = sign_text(TEXT, NAME, KEY), sign_text(TEXT, "witness.example.org", OTHER)
        false = NoteSignature(own.name, own.key_hash, other.signature)
        assert NAME in self.refused(self.with_signatures(false), VKEY)
        assert NAME in self.refused(self.with_signatures(own, false), VKEY)
        witness = verifier_key("witness.example.org", OTHER.public)
        assert NAME in self.refused(self.with_signatures(other, false), VKEY, witness)

    def test_same_name_or_same_hash_alone_is_another_key(self) -> None:
        own = sign_text(TEXT, NAME, KEY)
        same_name = NoteSignature(NAME, b"\x00\x00\x00\x01", bytes(64))
        same_hash = NoteSignature("witness.example.org", own.key_hash, bytes(64))
        assert verify_note(self.with_signatures(same_name, same_hash, own), [VKEY]).signatures == (own,)

    def test_signatures_of_another_length(self) -> None:
        own = sign_text(TEXT, NAME, KEY)
        for value in (own.signature[:-1], own.signature + b"\x00", bytes(8) + own.signature):
            assert NAME in self.refused(self.with_signatures(NoteSignature(NAME, own.key_hash, value)), VKEY)

    def test_the_same_key_given_twice(self) -> None:
        assert verify_note(NOTE, [VKEY, VKEY]).text == TEXT
