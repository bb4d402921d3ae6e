"""Fuzz targets of what is written in bytes: each is read or refused, and what is read has one encoding.

A target tells whether anything was read: one that refuses all of its seeds holds nothing to its promises.
"""

from __future__ import annotations

from collections.abc import Callable

from kt_es.client.trusted import Pinned, Trusted
from kt_es.errors import ConfigError, DivergenceError, MalformedError, VerificationError
from kt_es.evidence import convict
from kt_es.formats.codec import decode, encode
from kt_es.formats.configs import Config
from kt_es.formats.evidence import Evidence, armored, unarmored
from kt_es.formats.heads import Checkpoint, SignedMapHead
from kt_es.formats.labels import LABEL_POLICIES, normalize_label
from kt_es.formats.notes import VerifierKey, parse_note
from kt_es.ledger.rows import Committed
from kt_es.merkle.pages import (
    CHILD_SIZE,
    EMPTY_PAGE,
    LEAF_SIZE,
    SLOTS,
    check_page,
    decode_page,
    encode_page,
)
from tests.builders import ORIGIN, SIGNER_KEY
from tests.example_directory import evidence_of_entries, evidence_of_heads
from tests.examples import EXAMPLES

Target = Callable[[bytes], bool]


def check(holds: bool, breach: str) -> None:
    """Raise unless a promise of a target holds. A plain ``assert`` would vanish under ``python -O``."""
    if not holds:
        raise AssertionError(breach)


def _one_encoding(again: Callable[[bytes], bytes], refused: tuple[type[Exception], ...]) -> Target:
    def target(data: bytes) -> bool:
        try:
            read = again(data)
        except refused:
            return False
        check(read == data, "what was read encodes to other bytes")
        return True

    return target


def _text(parse: Callable[[str], str]) -> Callable[[bytes], bytes]:
    """Return ``parse`` for bytes, which may be any text, including lone surrogates."""
    return lambda data: parse(data.decode("utf-8", "surrogatepass")).encode("utf-8", "surrogatepass")


def _committed(data: bytes) -> bytes:
    return Committed.decode(data, ORIGIN, SIGNER_KEY).encode()


def _config(data: bytes) -> bytes:
    made = Config.decode(data)
    check(len(made.hash) == 32, "a config has a hash")
    return made.encode()


_REFUSED = (MalformedError, UnicodeDecodeError)

CODEC_TARGETS: dict[str, Target] = {
    **{made.rule: _one_encoding(made.again, (MalformedError, DivergenceError)) for made in EXAMPLES.values()},
    "config": _one_encoding(_config, (MalformedError,)),
    "cbor": _one_encoding(lambda data: encode(decode(data, "value")), (MalformedError,)),
    "committed": _one_encoding(_committed, (MalformedError, DivergenceError)),
    "trusted": _one_encoding(lambda data: Trusted.decode(data).encode(), (MalformedError,)),
}

TEXT_TARGETS: dict[str, Target] = {
    "note": _one_encoding(lambda data: parse_note(data).encode().encode(), (MalformedError,)),
    "checkpoint": _one_encoding(_text(lambda text: Checkpoint.parse(text).encode()), _REFUSED),
    "vkey": _one_encoding(_text(lambda text: VerifierKey.parse(text).encode()), _REFUSED),
}


def pin(data: bytes) -> bool:
    """Parse a pinned key as a person types it. Only blanks around it are ignored."""
    text = data.decode("utf-8", "replace")
    try:
        pinned = Pinned.parse(text)
    except ConfigError:
        return False
    check(pinned.vkey == text.strip(), "a verifier key has one spelling")
    return True


def label(data: bytes) -> bool:
    """Check that normalizing a normalized label changes nothing."""
    text = data.decode("utf-8", "surrogatepass") if _is_utf8(data) else data.decode("latin-1")
    read = False
    for policy in LABEL_POLICIES:
        try:
            known = normalize_label(text, policy)
        except MalformedError:
            continue
        check(normalize_label(known, policy) == known, "a normalized label is not normal")
        read = True
    return read


def armor(data: bytes) -> bool:
    """Check that armored evidence is refused, or decodes to data that survives armoring again."""
    try:
        read = unarmored(data.decode("utf-8", "surrogatepass"))
    except _REFUSED:
        return False
    check(unarmored(armored(read)) == read, "armor does not come off again")
    return True


_SIGNED = {
    signed.head_bytes for made in (evidence_of_heads(), evidence_of_entries()) for signed in made.heads()
}


def conviction(data: bytes) -> bool:
    """Check that evidence which convicts has two statements that the signer of the tests signed."""
    try:
        made = Evidence.decode(data)
        convict(made)
    except (MalformedError, VerificationError):
        return False
    ours = made.configs[0].config.signer_key == SIGNER_KEY
    check(ours, "somebody else is convicted")
    heads = {SignedMapHead.decode(statement).head_bytes for statement in made.statements}
    check(len(heads) == 2 and heads <= _SIGNED, "what convicts was never signed")
    return True


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def page(data: bytes) -> bool:
    """Decode a page with its CRC and a correct one: ``u8 depth || path || u40 version || hash || page``."""
    depth = min(data[0] if data else 0, 63)
    at = 1 + (depth + 1) // 2 + 5 + 8
    key, stored = (bytes((depth,)) + data[1:at]).ljust(at, b"\0"), data[at:]
    read = _page(key, stored)
    slots, rest = _slots_of(stored)
    if any(slots):
        made = encode_page(key, slots)
        check(decode_page(key, made) == slots, "slots do not come back")
        check(_page(key, made), "a page that was made is refused")
        _page(key, made[:-4] + rest + made[-4:])
        read = True
    return read


def _page(key: bytes, stored: bytes) -> bool:
    try:
        slots = decode_page(key, stored)
    except DivergenceError:
        return False
    check(encode_page(key, slots) == stored, "a page has one encoding")
    page = EMPTY_PAGE.with_slots(slots)
    check(check_page((key, page.hash), stored) == page, "a page with its hash is refused")
    try:
        check_page((key, bytes(32)), stored)
    except DivergenceError:
        return True
    check(False, "a page with another hash is used")
    return True


def _slots_of(data: bytes) -> tuple[list[bytes | None], bytes]:
    """Make slots by the first four bytes: two bits for each slot mean none, leaf or child."""
    kinds, data = int.from_bytes(data[:4]), data[4:]
    slots: list[bytes | None] = []
    for position in range(SLOTS):
        size = (0, LEAF_SIZE, CHILD_SIZE, 0)[kinds >> 2 * position & 3]
        slots.append(data[:size].ljust(size, b"\0") if size else None)
        data = data[size:]
    return slots, data
