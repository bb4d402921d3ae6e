"""Cosignatures of checkpoints by witnesses and monitors. FORMATS, "Cosignatures"; C2SP tlog-cosignature.

A cosigner states that, at a time, a checkpoint is the largest consistent one of its log that it has seen. The
statement is one more signature line of the checkpoint's note::

  — witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5...

The base64 holds ``key hash[4] || time[8] || signature[64]``. The time is in seconds since 1970, big endian.
The Ed25519 signature covers the lines ``cosignature/v1`` and ``time <seconds>``, and then the whole text of
the note, so a cosignature is valid for one log, one size and one root.

With ML-DSA-44 the signature has 2420 bytes and covers a structure of the cosigner's name, the time, and the
origin, size and root of the log. Lines of both types may stand in one note.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kt_es.crypto import mldsa
from kt_es.crypto.hashes import sha256
from kt_es.crypto.mldsa import MlDsaKey
from kt_es.crypto.signatures import ED25519, PUBLIC_KEY_SIZES, SIGNATURE_SIZE, PrivateKey, verify
from kt_es.errors import MalformedError, VerificationError
from kt_es.formats.notes import KEY_HASH_SIZE, Note, NoteSignature, decode_base64, encode_base64, parse_note
from kt_es.formats.witnessing import witnessed

COSIGNATURE: Final = 0x04
"""The signature type of cosignature/v1 with Ed25519."""
COSIGNATURE_ML_DSA: Final = 0x06
"""The signature type of cosignatures with ML-DSA-44."""

MAX_TIMESTAMP: Final = 2**63 - 1
STEP: Final = "cosignature"

MAX_COSIGNED_NOTE: Final = 32 * 1024
"""Bytes of a cosigned checkpoint in streams, requests and answers of kt-es."""
MAX_LINES: Final = 48
"""Cosignatures in such a note. Every note may have 64 signatures."""

_TIME_SIZE: Final = 8
_KEY_SIZES: Final = {COSIGNATURE: PUBLIC_KEY_SIZES[ED25519], COSIGNATURE_ML_DSA: mldsa.PUBLIC_KEY_SIZE}
_SIZES: Final = {
    COSIGNATURE: _TIME_SIZE + SIGNATURE_SIZE,
    COSIGNATURE_ML_DSA: _TIME_SIZE + mldsa.SIGNATURE_SIZE,
}
MAX_NAME: Final = 255
"""Bytes of the names of cosigner and log in what ML-DSA-44 signs."""


@dataclass(frozen=True, slots=True)
class CosignerKey:
    """The named public key of a cosigner: a verifier key of type 0x04 (Ed25519) or 0x06 (ML-DSA-44).

    Raises ``MalformedError``, also for ML-DSA-44 where the installed library does not have it.
    """

    name: str
    key: bytes
    type: int = COSIGNATURE

    def __post_init__(self) -> None:
        # The name has the rules of every note; a signature line is where they stand.
        NoteSignature(self.name, bytes(KEY_HASH_SIZE), b"\x00")
        if (size := _KEY_SIZES.get(self.type)) is None:
            problem = f"the signature type is 0x{self.type:02x}: cosigners have 0x04 or 0x06"
            raise MalformedError("cosigner key", problem)
        if len(self.key) != size:
            raise MalformedError("cosigner key", f"the public key has {len(self.key)} bytes, not {size}")
        if self.type == COSIGNATURE_ML_DSA and not mldsa.is_available():
            raise MalformedError("cosigner key", "ML-DSA-44 needs a newer library cryptography")

    @property
    def key_hash(self) -> bytes:
        return sha256(self.name.encode() + b"\n" + bytes([self.type]) + self.key)[:KEY_HASH_SIZE]

    @property
    def vkey(self) -> str:
        """The key as it is given to others: ``name+hex(key hash)+base64(type || key)``."""
        return f"{self.name}+{self.key_hash.hex()}+{encode_base64(bytes([self.type]) + self.key)}"

    @classmethod
    def parse(cls, vkey: str) -> CosignerKey:
        """Parse a key of the form ``name+hash+base64``. Raises ``MalformedError``."""
        name, hash_mark, rest = vkey.partition("+")
        key_hash, key_mark, encoded = rest.partition("+")
        if not hash_mark or not key_mark:
            raise MalformedError("cosigner key", "must have the form name+hash+key")
        typed = decode_base64(encoded, "cosigner key")
        if not typed:
            raise MalformedError("cosigner key", "is empty")
        key = cls(name, typed[1:], typed[0])
        if key.key_hash.hex() != key_hash:
            raise MalformedError("cosigner key", "the key hash is not that of name and key")
        return key

    def made(self, signature: NoteSignature) -> bool:
        """Return whether ``signature`` names this key. It may be invalid nevertheless."""
        return (signature.name, signature.key_hash) == (self.name, self.key_hash)


def cosigner_key(name: str, public_key: bytes) -> str:
    """Return the verifier key of a cosigner with a raw 32-byte Ed25519 key. Raises ``MalformedError``."""
    return CosignerKey(name, public_key).vkey


def cosign(text: str, name: str, key: PrivateKey, timestamp: int) -> str:
    """Return the line, with its newline, by which ``key`` cosigns the note with this ``text``.

    Args:
        text: The text of a checkpoint's note, with its last newline and without signatures.
        name: The cosigner's key name.
        key: Its Ed25519 key. It must not sign anything else, and no cosigner of another name may have it.
        timestamp: The time in seconds since 1970, 1 to 2^63 - 1.

    Raises ``MalformedError``.
    """
    if key.algorithm != ED25519:
        raise MalformedError("cosigner key", "must be an Ed25519 key")
    _check_time(timestamp)
    key_hash = CosignerKey(name, key.public).key_hash
    # No text is signed that cannot be the text of a note.
    Note(text, (NoteSignature(name, key_hash, bytes(_SIZES[COSIGNATURE])),))
    signature = key.sign(_message(text, timestamp))
    return NoteSignature(name, key_hash, timestamp.to_bytes(_TIME_SIZE) + signature).line()


def verify_cosignature(text: str, signature: NoteSignature, key: CosignerKey) -> int:
    """Return the time, in seconds since 1970, at which ``key`` cosigned the note with this ``text``.

    Raises:
        VerificationError: Step "cosignature"; the signature is of another key or does not verify, or its time
            is none.
    """
    if not key.made(signature):
        raise VerificationError(STEP, f"is by {signature.name}, not by the key of {key.name}")
    timestamp = int.from_bytes(signature.signature[:_TIME_SIZE])
    if (
        len(signature.signature) != _SIZES[key.type]
        or not 1 <= timestamp <= MAX_TIMESTAMP
        or not _verifies(text, timestamp, signature.signature[_TIME_SIZE:], key)
    ):
        raise VerificationError(STEP, f"the cosignature by {key.name} does not verify")
    return timestamp


def ml_dsa_message(text: str, name: str, timestamp: int) -> bytes:
    """Return what the cosigner ``name`` signs with ML-DSA-44 for the checkpoint with this note text.

    Raises ``MalformedError`` if the text is not that of a checkpoint, or a name has more than 255 bytes.
    """
    checkpoint = witnessed(text)
    names = [name.encode(), checkpoint.origin.encode()]
    if any(len(each) > MAX_NAME for each in names):
        raise MalformedError(STEP, f"names have at most {MAX_NAME} bytes")
    cosigner, origin = (bytes([len(each)]) + each for each in names)
    times, ends = timestamp.to_bytes(8), bytes(8) + checkpoint.size.to_bytes(8)
    return b"subtree/v1\n\0" + cosigner + times + origin + ends + checkpoint.root


def cosign_ml_dsa(text: str, name: str, key: MlDsaKey, timestamp: int) -> str:
    """Return the line by which ``key`` cosigns, as ``cosign`` does. Raises ``MalformedError``."""
    _check_time(timestamp)
    signature = key.sign(ml_dsa_message(text, name, timestamp))
    key_hash = CosignerKey(name, key.public, COSIGNATURE_ML_DSA).key_hash
    return NoteSignature(name, key_hash, timestamp.to_bytes(_TIME_SIZE) + signature).line()


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A note and who cosigned it: for each known cosigner the latest time in seconds since 1970."""

    note: Note
    cosigners: Mapping[CosignerKey, int]

    @property
    def names(self) -> Mapping[str, int]:
        """The same times by the names of the keys; the latest one where two keys have one name."""
        named: dict[str, int] = {}
        for key, timestamp in self.cosigners.items():
            named[key.name] = max(timestamp, named.get(key.name, 0))
        return named


def read_cosigned(encoded: str | bytes, keys: Iterable[CosignerKey]) -> Cosigned:
    """Verify the cosignatures of a note by ``keys``. ``open_checkpoint`` verifies the log's own signature.

    Lines by keys that are not among ``keys`` are ignored, whatever they hold.

    Raises:
        MalformedError: ``encoded`` is not a note.
        VerificationError: Step "cosignature"; a line names one of ``keys`` and does not verify, or two
            keys have the same name and key hash.
    """
    note = parse_note(encoded)
    known: dict[tuple[str, bytes], CosignerKey] = {}
    for key in keys:
        if known.setdefault((key.name, key.key_hash), key) != key:
            raise VerificationError(STEP, f"two keys of {key.name} have the same key hash")
    found: dict[CosignerKey, int] = {}
    for signature in note.signatures:
        cosigner = known.get((signature.name, signature.key_hash))
        if cosigner is not None:
            timestamp = verify_cosignature(note.text, signature, cosigner)
            found[cosigner] = max(timestamp, found.get(cosigner, 0))
    return Cosigned(note, found)


def with_cosignatures(note: Note, lines: Sequence[NoteSignature]) -> tuple[Note, ...]:
    """Return ``note``, which has its log's signature alone, with ``lines``: several notes if there are many.

    Each has at most ``MAX_COSIGNED_NOTE`` bytes, unless a single line has more.
    """
    notes: list[Note] = []
    own = len(note.encode().encode())
    part: list[NoteSignature] = []
    size = own
    for line in lines:
        added = len(line.line().encode())
        if part and (size + added > MAX_COSIGNED_NOTE or len(part) == MAX_LINES):
            notes.append(Note(note.text, (*note.signatures, *part)))
            part, size = [], own
        part.append(line)
        size += added
    return (*notes, Note(note.text, (*note.signatures, *part))) if part else tuple(notes)


def _verifies(text: str, timestamp: int, signature: bytes, key: CosignerKey) -> bool:
    if key.type == COSIGNATURE:
        return verify(ED25519, key.key, _message(text, timestamp), signature)
    try:
        message = ml_dsa_message(text, key.name, timestamp)
    except MalformedError:
        return False
    return mldsa.verify(key.key, message, signature)


def _check_time(timestamp: int) -> None:
    if not 1 <= timestamp <= MAX_TIMESTAMP:
        raise MalformedError(STEP, f"the time must be in 1 to {MAX_TIMESTAMP}, is {timestamp}")


def _message(text: str, timestamp: int) -> bytes:
    return f"cosignature/v1\ntime {timestamp}\n{text}".encode()
