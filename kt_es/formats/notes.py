"""C2SP signed notes (https://c2sp.org/signed-note): text signed by one or more named keys.

A note consists of its text, which ends in a newline, an empty line, and one line for each signature::

  If you think cryptography is the answer to your problem,
  then you don't know what your problem is.

  — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=

A signature line is an em dash, a space, the key name, a space and the base64 of ``key hash[4] || signature``.
The key hash is ``SHA-256(name || 0x0A || type || public key)[:4]``. A verifier key is written
``name+hex(key hash)+base64(type || public key)``.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from kt_es.crypto.hashes import sha256
from kt_es.crypto.signatures import ED25519, PUBLIC_KEY_SIZES, PrivateKey, verify
from kt_es.errors import MalformedError, VerificationError
from kt_es.formats.codec import check_size
from kt_es.formats.labels import is_white_space

MAX_NOTE_SIZE: Final = 256 * 1024
"""The largest note in bytes of UTF-8. It has room for 64 signatures of ML-DSA-44 and their text."""

MAX_SIGNATURES: Final = 64
"""The largest number of signatures in a note. The specification requires a limit of at least 16."""

ED25519_NOTE: Final = 0x01
KEY_HASH_SIZE: Final = 4

_DASH: Final = "— "
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line: the claimed key name, the 4-byte key hash and the bytes of the signature."""

    name: str
    key_hash: bytes
    signature: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)
        if len(self.key_hash) != KEY_HASH_SIZE or not self.signature:
            raise MalformedError("note", "a signature is too short")

    def line(self) -> str:
        return f"{_DASH}{self.name} {encode_base64(self.key_hash + self.signature)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text that ends in a newline, and its signatures. Constructing a note does not verify them."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def __post_init__(self) -> None:
        _check_text(self.text)
        if not self.text.endswith("\n"):
            raise MalformedError("note", "the text does not end in a newline")
        if not 1 <= len(self.signatures) <= MAX_SIGNATURES:
            raise MalformedError(
                "note", f"must have 1 to {MAX_SIGNATURES} signatures, has {len(self.signatures)}"
            )

    def encode(self) -> str:
        """Return the note as it is transmitted. Raises ``MalformedError``."""
        encoded = "".join((self.text, "\n", *(signature.line() for signature in self.signatures)))
        check_size(encoded.encode(), "note", MAX_NOTE_SIZE)
        return encoded


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A named public key for notes. Of the signature types of the specification, only Ed25519 is known."""

    name: str
    type: int
    key: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)
        if self.type != ED25519_NOTE:
            raise MalformedError("verifier key", f"signature type 0x{self.type:02x} is not known")
        if len(self.key) != PUBLIC_KEY_SIZES[ED25519]:
            raise MalformedError("verifier key", f"the public key has {len(self.key)} bytes, not 32")

    @property
    def key_hash(self) -> bytes:
        return sha256(self.name.encode() + b"\n" + bytes([self.type]) + self.key)[:KEY_HASH_SIZE]

    def encode(self) -> str:
        return f"{self.name}+{self.key_hash.hex()}+{encode_base64(bytes([self.type]) + self.key)}"

    @classmethod
    def parse(cls, encoded: str) -> VerifierKey:
        """Parse a key of the form ``name+hash+base64``. Raises ``MalformedError``."""
        name, hash_mark, rest = encoded.partition("+")
        key_hash, key_mark, encoded_key = rest.partition("+")
        if not hash_mark or not key_mark:
            raise MalformedError("verifier key", "must have the form name+hash+key")
        key = decode_base64(encoded_key, "verifier key")
        if not key:
            raise MalformedError("verifier key", "is empty")
        verifier = cls(name, key[0], key[1:])
        if verifier.key_hash.hex() != key_hash:
            raise MalformedError("verifier key", "the key hash is not that of name and key")
        return verifier

    def verifies(self, text: str, signature: bytes) -> bool:
        return verify(ED25519, self.key, text.encode(), signature)


def parse_note(encoded: str | bytes) -> Note:
    """Parse a note. All signatures are returned, and none is verified.

    Parsing is strict: valid UTF-8, no control character except the newline, canonical base64, at most 64
    signatures and 256 KiB. Encoding the note must give ``encoded`` again. Raises ``MalformedError``.
    """
    content = _decode_utf8(encoded)
    _check_text(content)
    # The text may contain empty lines, so the last empty line is the separator.
    text, separator, lines = content.rpartition("\n\n")
    if not separator or not lines.endswith("\n"):
        raise MalformedError("note", "has no signatures after an empty line")
    count = lines.count("\n")
    if count > MAX_SIGNATURES:
        raise MalformedError("note", f"must have 1 to {MAX_SIGNATURES} signatures, has {count}")
    note = Note(text + "\n", tuple(_parse_signature(line) for line in lines[:-1].split("\n")))
    if note.encode() != content:
        raise MalformedError("note", "is not in its one encoding")
    return note


def sign_text(text: str, name: str, key: PrivateKey) -> NoteSignature:
    """Sign ``text`` with the Ed25519 ``key`` under the key name ``name`` (signature type 0x01).

    Raises ``MalformedError``.
    """
    if key.algorithm != ED25519:
        raise MalformedError("note", "is signed with Ed25519 keys only")
    _check_text(text)
    return NoteSignature(name, verifier_key(name, key.public).key_hash, key.sign(text.encode()))


def sign_note(text: str, name: str, key: PrivateKey) -> str:
    """Return ``text`` as a note with one signature, made with ``key`` under the key name ``name``.

    Raises ``MalformedError``.
    """
    return Note(text, (sign_text(text, name, key),)).encode()


def verifier_key(name: str, public_key: bytes) -> VerifierKey:
    """Return the verifier key of a raw 32-byte Ed25519 public key."""
    return VerifierKey(name, ED25519_NOTE, public_key)


def verify_note(encoded: str | bytes, keys: Iterable[VerifierKey], *, step: str = "note") -> Note:
    """Verify a note and return it with only those signatures that ``keys`` have made.

    Raises:
        MalformedError: ``encoded`` is not a note.
        VerificationError: Step ``step``; no signature names one of ``keys`` by name and key hash, a signature
            that names one is invalid, or two of ``keys`` have the same name and key hash.
    """
    note = parse_note(encoded)
    known: dict[tuple[str, bytes], VerifierKey] = {}
    for key in keys:
        if known.setdefault((key.name, key.key_hash), key) != key:
            raise VerificationError(step, f"two keys of {key.name} have the same key hash")
    verified = []
    for signature in note.signatures:
        signer = known.get((signature.name, signature.key_hash))
        if signer is None:
            continue
        if not signer.verifies(note.text, signature.signature):
            raise VerificationError(step, f"the signature by {signer.name} does not verify")
        verified.append(signature)
    if not verified:
        raise VerificationError(step, "no signature is by a known key")
    return Note(note.text, tuple(verified))


def _parse_signature(line: str) -> NoteSignature:
    name, separator, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not separator:
        raise MalformedError("note", "a signature is not of the form '— name base64'")
    blob = decode_base64(encoded, "note")
    return NoteSignature(name, blob[:KEY_HASH_SIZE], blob[KEY_HASH_SIZE:])


def _decode_utf8(encoded: str | bytes) -> str:
    data = _encode(encoded, "note") if isinstance(encoded, str) else encoded
    check_size(data, "note", MAX_NOTE_SIZE)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise MalformedError("note", "is not valid UTF-8") from None


def _check_text(text: str) -> None:
    _encode(text, "note")
    if _CONTROL.search(text):
        raise MalformedError("note", "contains a control character")


def _check_name(name: str) -> None:
    _encode(name, "key name")
    if not name or "+" in name or _CONTROL.search(name) or any(map(is_white_space, name)):
        raise MalformedError("key name", "must not be empty or contain spaces, control characters or a plus")


def _encode(text: str, what: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise MalformedError(what, "is not valid Unicode") from None


def encode_base64(data: bytes) -> str:
    """Return the base64 of ``data`` with padding (RFC 4648, section 4)."""
    return base64.b64encode(data).decode()


def decode_base64(encoded: str, what: str) -> bytes:
    """Decode base64. Only strings that ``encode_base64`` returns are accepted: unused bits must be 0.

    Raises ``MalformedError``.
    """
    try:
        data = base64.b64decode(encoded, validate=True)
    except ValueError:
        raise MalformedError(what, "contains invalid base64") from None
    if encode_base64(data) != encoded:
        raise MalformedError(what, "contains base64 that is not in its one encoding")
    return data
