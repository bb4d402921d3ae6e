"""The usual shape of a mutation and of a record, read by one regular expression each.

Nearly every mutation has one Ed25519 key and one signature. Its encoding is then a fixed sequence of headers
and fields of a known length, and a match is a proof that the bytes are the only encoding of what they hold:
each header is the shortest one, and no byte is left over. This takes a fifth of the time of the general
decoder, which decodes, checks and encodes again. Bytes without a match go to the general decoder, so both
accept the same bytes and give the same values. The expressions have no repetition of variable length, so a
match takes constant time.
"""

from __future__ import annotations

import re
from typing import Final

# Unsigned integers in their shortest encoding (RFC 8949, section 3), without and with 0, up to 32 and 64
# bits.
_SMALL: Final = rb"\x18[\x18-\xff]|\x19(?!\x00)..|\x1a(?!\x00\x00)...."
_VERSION: Final = rb"[\x01-\x17]|" + _SMALL
_UINT: Final = rb"[\x00-\x17]|" + _SMALL + rb"|\x1b(?!\x00{4}).{8}"

_MUTATION: Final = re.compile(
    # [entry bytes, [[key id, signature]]], where the entry bytes are
    # [index, version, commitment, [[1, key]], previous or null].
    rb"\x82\x58(.)"
    rb"(\x85\x58\x20(.{32})(" + _VERSION + rb")\x58\x20(.{32})\x81\x82\x01\x58\x20(.{32})"
    rb"(?:\xf6|\x58\x20(.{32})))"
    rb"\x81\x82\x48(.{8})\x58\x40(.{64})",
    re.DOTALL,
)

_RECORD: Final = re.compile(
    # [sequence, queue revision, position, kind, verdict, ...: the header of the item follows, and the item.
    rb"\x86(" + _UINT + rb")(" + _UINT + rb")(" + _UINT + rb")([\x00-\x17])([\x00-\x17]|\x18[\x18-\xff])"
    rb"(?:\x58([\x18-\xff])|\x59((?!\x00)..))",
    re.DOTALL,
)


def usual_mutation(data: bytes) -> tuple[bytes, bytes, int, bytes, bytes, bytes | None, bytes, bytes] | None:
    """Return the fields of a mutation with one Ed25519 key and one signature, None if it has another shape.

    The fields are: entry bytes, index, version, commitment, key, previous, key id, signature.
    """
    found = _MUTATION.fullmatch(data)
    if found is None:
        return None
    size, entry, index, version, commitment, key, previous, key_id, signature = found.groups()
    if size[0] != len(entry):
        return None
    return entry, index, _uint(version), commitment, key, previous, key_id, signature


def usual_record(data: bytes) -> tuple[int, int, int, int, int, bytes] | None:
    """Return the fields of a record whose item is 24 to 65,535 bytes, None if it has another shape.

    The fields are: sequence, queue revision, position, kind, verdict, item. Nothing but the encoding is
    checked.
    """
    found = _RECORD.match(data)
    if found is None:
        return None
    sequence, revision, position, kind, verdict, short, long = found.groups()
    item = data[found.end() :]
    if len(item) != int.from_bytes(short or long):
        return None
    return _uint(sequence), _uint(revision), _uint(position), kind[0], verdict[-1], item


def _uint(encoded: bytes) -> int:
    return encoded[0] if len(encoded) == 1 else int.from_bytes(encoded[1:])
