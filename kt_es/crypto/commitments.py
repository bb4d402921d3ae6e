"""Commitments to profiles: the construction of the IETF KEYTRANS draft (docs/DESIGN.md, section 3).

``HMAC-SHA256(Kc, opening[16] || u8 len || label || u32 version || u32 len || profile)``, integers big
endian. The commitment binds label, version and profile, and says nothing about them until the opening
is known; erasing the opening erases what it said.

Example: opening 16 zero bytes, label ``a@example.org``, version 1, profile ``0x80``: HMAC over
``00*16 0d 614065...7267 00000001 00000001 80``. tests/vectors/commitments.json has the values.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from kt_es.errors import MalformedError

OPENING_SIZE: Final = 16
MAX_LABEL_SIZE: Final = 255
MAX_VERSION: Final = 2**32 - 1
MAX_PROFILE_SIZE: Final = 512 * 1024

_KC: Final = bytes.fromhex("d821f8790d97709796b4d7903357c3f5")


def commit(opening: bytes, label: str, version: int, profile: bytes) -> bytes:
    """The 32-byte commitment to ``profile`` (at most 512 KiB) as ``version`` (from 1) of ``label``.

    ``opening`` is 16 bytes, fresh and random for each commitment. Raises ``MalformedError`` naming the
    part that does not fit.
    """
    try:
        name = label.encode()
    except UnicodeEncodeError:
        raise MalformedError("label", "is not valid Unicode") from None
    if len(opening) != OPENING_SIZE:
        raise MalformedError("opening", f"has {len(opening)} bytes instead of {OPENING_SIZE}")
    if len(name) > MAX_LABEL_SIZE:
        raise MalformedError("label", f"has more than {MAX_LABEL_SIZE} bytes")
    if not 1 <= version <= MAX_VERSION:
        raise MalformedError("version", f"is not between 1 and {MAX_VERSION}")
    if len(profile) > MAX_PROFILE_SIZE:
        raise MalformedError("profile", f"has more than {MAX_PROFILE_SIZE} bytes")
    committed = b"".join(
        (
            opening,
            len(name).to_bytes(1, "big"),
            name,
            version.to_bytes(4, "big"),
            len(profile).to_bytes(4, "big"),
            profile,
        )
    )
    return hmac.digest(_KC, committed, hashlib.sha256)


def opens(commitment: bytes, opening: bytes, label: str, version: int, profile: bytes) -> bool:
    """Whether ``commitment`` opens to these values, compared in constant time.

    False, too, for values that cannot be committed to: they come from a server that is not trusted.
    """
    try:
        expected = commit(opening, label, version, profile)
    except MalformedError:
        return False
    return hmac.compare_digest(expected, commitment)
