"""Cosignatures with ML-DSA-44: those of another implementation, our own, and the refusal of all others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings

from kt_es.crypto import mldsa
from kt_es.crypto.mldsa import MlDsaKey
from kt_es.errors import ConfigError, MalformedError, VerificationError
from kt_es.formats import cosignatures
from kt_es.formats.cosignatures import (
    COSIGNATURE_ML_DSA,
    CosignerKey,
    cosign_ml_dsa,
    ml_dsa_message,
    read_cosigned,
    verify_cosignature,
)
from kt_es.formats.heads import Checkpoint, open_checkpoint
from kt_es.formats.notes import NoteSignature, VerifierKey, parse_note
from tests.formats.test_cosignatures import KEY, LOG, NAME, SIGNED, TEXT, TIME, signature_of, texts, times

VECTOR = json.loads((Path(__file__).parents[1] / "vectors/cosignatures.json").read_text())

pytestmark = pytest.mark.skipif(
    not mldsa.is_available(), reason="the installed library cryptography has no ML-DSA-44"
)
if mldsa.is_available():
    SECRET = MlDsaKey.from_seed(bytes(range(32)))
    COSIGNER = CosignerKey(NAME, SECRET.public, COSIGNATURE_ML_DSA)
    LINE = cosign_ml_dsa(TEXT, NAME, SECRET, TIME)


def test_a_note_of_another_implementation_verifies() -> None:
    log = VerifierKey.parse(VECTOR["log"])
    keys = [CosignerKey.parse(VECTOR[name]) for name in ("ed25519", "ml-dsa-44")]
    found = read_cosigned(VECTOR["note"], keys)
    assert set(found.cosigners) == set(keys)
    assert len(set(found.cosigners.values())) == 1
    assert open_checkpoint(VECTOR["note"], log.name, [log.key]).size == 1234
    assert keys[0].key_hash != keys[1].key_hash


def test_the_signed_structure_is_that_of_the_specification() -> None:
    message = ml_dsa_message(TEXT, NAME, TIME)
    parts = [
        b"subtree/v1\n\0",
        bytes([len(NAME)]) + NAME.encode(),
        TIME.to_bytes(8),
        bytes([len(LOG)]) + LOG.encode(),
        (0).to_bytes(8),
        (1234).to_bytes(8),
        bytes(range(32)),
    ]
    assert message == b"".join(parts)


def test_names_have_at_most_255_bytes() -> None:
    long = Checkpoint("a" * 256, 1, bytes(32)).encode()
    for text, name in ((long, NAME), (TEXT, "é" * 128)):
        with pytest.raises(MalformedError, match="255"):
            cosign_ml_dsa(text, name, SECRET, TIME)
    with pytest.raises(MalformedError):
        cosign_ml_dsa("no checkpoint\n", NAME, SECRET, TIME)


@settings(max_examples=20)
@given(texts, times)
def test_what_is_cosigned_verifies(text: str, timestamp: int) -> None:
    if len(text.partition("\n")[0].encode()) > 255:
        return
    line = cosign_ml_dsa(text, NAME, SECRET, timestamp)
    assert read_cosigned(text + "\n" + line, [COSIGNER]).cosigners == {COSIGNER: timestamp}


def test_it_is_good_for_one_checkpoint_one_time_and_one_name() -> None:
    valid = signature_of(LINE)
    others = [TEXT.replace("1234", "1235"), TEXT.replace("heads", "heaps"), "no checkpoint\n"]
    for text in others:
        with pytest.raises(VerificationError):
            verify_cosignature(text, valid, COSIGNER)
    for false in (
        (TIME + 1).to_bytes(8) + valid.signature[8:],
        bytes(8) + valid.signature[8:],
        valid.signature[:-1],
        valid.signature + b"\0",
        valid.signature[:-1] + bytes([valid.signature[-1] ^ 1]),
        valid.signature[:8] + KEY.sign(b""),
    ):
        with pytest.raises(VerificationError):
            verify_cosignature(TEXT, NoteSignature(NAME, COSIGNER.key_hash, false), COSIGNER)
    renamed = CosignerKey("another.example.org", SECRET.public, COSIGNATURE_ML_DSA)
    with pytest.raises(VerificationError):
        verify_cosignature(TEXT, NoteSignature(renamed.name, renamed.key_hash, valid.signature), renamed)
    # Extension lines are not covered.
    assert verify_cosignature(TEXT + "more\n", valid, COSIGNER) == TIME


def test_both_types_stand_in_one_note() -> None:
    ed25519 = CosignerKey(NAME, KEY.public)
    note = SIGNED + cosignatures.cosign(TEXT, NAME, KEY, TIME) + LINE
    assert read_cosigned(note, [COSIGNER, ed25519]).cosigners == {COSIGNER: TIME, ed25519: TIME}
    assert read_cosigned(note, [ed25519]).cosigners == {ed25519: TIME}
    assert len(parse_note(note).signatures) == 3


def test_keys() -> None:
    assert CosignerKey.parse(COSIGNER.vkey) == COSIGNER
    for key, kind in ((SECRET.public[:-1], 6), (SECRET.public, 4), (KEY.public, 6), (KEY.public, 5)):
        with pytest.raises(MalformedError):
            CosignerKey(NAME, key, kind)
    assert MlDsaKey.from_pem(SECRET.to_pem()) == SECRET
    with pytest.raises(MalformedError):
        MlDsaKey.from_pem(b"junk")
    with pytest.raises(MalformedError):
        MlDsaKey.from_seed(bytes(31))
    with pytest.raises(ConfigError):
        MlDsaKey.from_pem(KEY.to_pem())


def test_a_library_without_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    vkey = COSIGNER.vkey
    monkeypatch.setattr(mldsa, "is_available", lambda: False)
    with pytest.raises(MalformedError, match="newer library cryptography"):
        CosignerKey.parse(vkey)
