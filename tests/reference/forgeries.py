"""Heads and pages that the signer could make instead of the published ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from kt_es.crypto.signatures import PrivateKey
from kt_es.formats.heads import HeadEvent, SignedMapHead
from kt_es.merkle.pages import decode_page, encode_page
from tests.builders import SIGNER


def another_head(data: bytes, fields: Mapping[str, object], key: PrivateKey = SIGNER) -> bytes:
    """The head event ``data`` with other ``fields`` in its head, signed by ``key``."""
    event = HeadEvent.decode(data)
    head = replace(SignedMapHead.decode(event.smh_bytes).head, **fields)  # type: ignore[arg-type]
    return replace(event, smh_bytes=SignedMapHead.sign(head, key).encode()).encode()


def forged_page(key: bytes, value: bytes) -> bytes:
    """Another index or hash in each slot, and a right checksum."""
    slots = decode_page(key, value)
    return encode_page(key, [slot and bytes([slot[0], slot[1] ^ 1]) + slot[2:] for slot in slots])
