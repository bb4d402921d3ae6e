"""What a person shows to register a new label, and what it is bound to. FORMATS, "Registration".

The first version of a label has no earlier owner who could sign it, so a front end may ask for a registration
proof: a token of the operator, a proof that was sent by mail, or an ID token of OpenID Connect. The three are
texts, and their form says which one it is:

- ``kt-token-`` and 43 characters of base64url: 32 random bytes
- ``kt-mail-`` and 32 characters of base64url: the end of its validity (8 bytes, seconds since 1970, big
  endian) and 16 bytes of HMAC-SHA256
- an ID token: three parts of base64url with dots between them (RFC 7515, 3.1)

Mail proofs and ID tokens are bound to one origin, one label and the authorized keys of its first version, so
they are of no use to anybody who has none of these private keys. The binding is the SHA-256 of the CBOR array
``["kt-es/registration/v1", origin, label, [[algorithm, raw], ...]]``, with the keys sorted by their encoding.
Base64url of it, without padding, is the nonce of an ID token.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable
from typing import Final

from kt_es.crypto.hashes import sha256
from kt_es.formats.codec import encode
from kt_es.formats.entries import PublicKey

OPEN: Final = "open"
TOKENS: Final = "tokens"
EMAIL: Final = "email"
OIDC: Final = "oidc"
WAYS: Final = (OPEN, TOKENS, EMAIL, OIDC)
"""The ways in which a front end lets people register labels."""

BINDING_LENGTH: Final = 32
MAX_EVIDENCE: Final = 8 * 1024
"""Characters of a registration proof. ID tokens have about 1,000."""

_MARK = "kt-es/registration/v1"
_MAIL_MARK = "kt-es/registration/mail/v1"
_TOKEN = re.compile(r"kt-token-[A-Za-z0-9_-]{43}")
_MAIL = re.compile(r"kt-mail-([A-Za-z0-9_-]{32})")
_ID_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_MAC_LENGTH = 16
_TIME_LENGTH = 8


def binding_of(origin: str, label: str, keys: Iterable[PublicKey]) -> bytes:
    """Return the 32-byte binding of a registration proof.

    Args:
        origin: The origin of the directory.
        label: The normalized label.
        keys: The authorized keys of the first version, in any order.
    """
    fields = [key.fields() for key in keys]
    return sha256(encode([_MARK, origin, label, sorted(fields, key=encode)]))


def nonce_of(binding: bytes) -> str:
    """Return the nonce that an ID token for ``binding`` must have."""
    return base64.urlsafe_b64encode(binding).rstrip(b"=").decode()


def check_code(binding: bytes) -> str:
    """Return the short text by which a person compares a mail with what their program shows."""
    return "-".join(binding[at : at + 2].hex() for at in range(0, 8, 2))


def way_of(evidence: str) -> str | None:
    """Return the way to which a registration proof belongs, by its form; None if it is no proof."""
    if _TOKEN.fullmatch(evidence):
        return TOKENS
    if _MAIL.fullmatch(evidence):
        return EMAIL
    return OIDC if _ID_TOKEN.fullmatch(evidence) else None


def new_token(random: bytes) -> str:
    """Return the token of 32 random bytes."""
    return f"kt-token-{base64.urlsafe_b64encode(random).rstrip(b'=').decode()}"


def mail_proof(secret: bytes, binding: bytes, until: int) -> str:
    """Return the proof that is sent to the address of ``binding``. ``until`` is in seconds since 1970."""
    packed = until.to_bytes(_TIME_LENGTH) + _mac(secret, binding, until)
    return f"kt-mail-{base64.urlsafe_b64encode(packed).decode()}"


def mail_proof_end(secret: bytes, binding: bytes, proof: str) -> int | None:
    """Return until when ``proof`` is valid, in seconds since 1970; None if it is not one for ``binding``."""
    found = _MAIL.fullmatch(proof)
    if found is None:
        return None
    packed = base64.urlsafe_b64decode(found[1])
    until = int.from_bytes(packed[:_TIME_LENGTH])
    if until >= 2**63 or not hmac.compare_digest(packed[_TIME_LENGTH:], _mac(secret, binding, until)):
        return None
    return until


def _mac(secret: bytes, binding: bytes, until: int) -> bytes:
    return hmac.digest(secret, encode([_MAIL_MARK, binding, until]), hashlib.sha256)[:_MAC_LENGTH]
