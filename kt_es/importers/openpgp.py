"""OpenPGP keyrings, binary or ASCII-armored: one account per e-mail address in the user ids.

The file is split by packet headers (RFC 9580, section 4.2) and every certificate is published byte for
byte as it stands in the file: libraries that parse and write it again reorder what they cannot verify.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from kt_es.errors import ConfigError, MalformedError
from kt_es.formats.labels import EMAIL
from kt_es.formats.profiles import ProfileKey
from kt_es.importers.accounts import Collector, ImportPlan, read_bytes

_SECRET_KEY, _PUBLIC_KEY, _COMPRESSED = 5, 6, 8
_BEGIN = re.compile(rb"-----BEGIN PGP (?:PUBLIC|PRIVATE) KEY BLOCK-----")
_END = re.compile(rb"-----END PGP (?:PUBLIC|PRIVATE) KEY BLOCK-----")
_EMPTY_LINE = re.compile(rb"\n[ \t\r]*\n")


def read_openpgp(path: Path, *, certifications: bool = True) -> ImportPlan:
    """The accounts of the keyring at ``path``.

    A user id counts only if the certificate's own key signed it, however old that signature is.
    Revoked and expired certificates and user ids are published like the others: they carry their own
    revocation, and who looks one up learns of it. Certificates with the same address share an account.
    ``certifications=False`` leaves out what other people's keys certified, as is done in any case where
    a profile would be too large. Non-exportable signatures and secret keys are never published.

    Raises ``ConfigError`` where the file cannot be read or the optional library is missing, and
    ``MalformedError`` where the file is no keyring or is damaged.
    """
    try:
        import pysequoia  # noqa: F401
    except ImportError:
        raise ConfigError("OpenPGP keyrings need an optional package: pip install 'kt-es[openpgp]'") from None
    from kt_es.importers.openpgp_certificate import read_certificate, without_certifications

    def smaller(key: ProfileKey) -> ProfileKey:
        return replace(key, data=without_certifications(key.data))

    def smaller_if_possible(key: ProfileKey) -> ProfileKey:
        try:
            return smaller(key)
        except MalformedError:
            return key

    found = Collector(EMAIL, smaller_if_possible)
    count = revoked = 0
    for number, data in enumerate(_certificates(read_bytes(path)), 1):
        try:
            certificate = read_certificate(data)
            key = ProfileKey(certificate.fingerprint, "openpgp", certificate.data)
            key = key if certifications else smaller(key)
        except MalformedError as error:
            found.skip(f"certificate {number}", f"the certificate {error.problem}")
            continue
        count += 1
        revoked += certificate.revoked
        if not certificate.user_ids:
            found.skip(key.name, "the certificate has no user id")
        for user_id in certificate.user_ids:
            address = mailbox(user_id.text)
            if address is None:
                found.skip(user_id.text, "the user id has no e-mail address")
            elif not user_id.signed:
                found.skip(user_id.text, "the user id has no valid signature by the certificate's own key")
            else:
                found.add(address, key)
    return found.plan(count, revoked)


def mailbox(user_id: str) -> str | None:
    """The address in a user id as written there, in angle brackets at its end or alone, or ``None``.

    RFC 9580, section 5.11; RFC 2822, section 3.4.
    """
    text = user_id.strip()
    if text.endswith(">"):
        text = text[text.rfind("<") + 1 : -1].strip()
    elif any(character.isspace() for character in text):
        return None
    return text if "@" in text else None


def _certificates(data: bytes) -> Iterator[bytes]:
    """The certificates of a keyring, each from its primary key up to the next one."""
    if not data:
        raise MalformedError("OpenPGP keyring", "the file is empty")
    if data[8:12] == b"KBXf":
        raise MalformedError("OpenPGP keyring", "this is a GnuPG keybox; write a keyring with gpg --export")
    if not data[0] & 0x80:
        data = _dearmor(data)
    start = None
    for tag, offset in _packets(data):
        if tag in (_PUBLIC_KEY, _SECRET_KEY):
            if start is not None:
                yield data[start:offset]
            start = offset
    if start is None:
        raise MalformedError("OpenPGP keyring", "holds no certificate")
    yield data[start:]


def _dearmor(data: bytes) -> bytes:
    """The packets of all blocks of a text, RFC 9580, section 6.2; checksums are left alone (section 6.1)."""
    blocks = []
    begin = _BEGIN.search(data)
    while begin is not None:
        end = _END.search(data, begin.end())
        if end is None:
            raise MalformedError("OpenPGP keyring", "the ASCII armor is cut off")
        blocks.append(_dearmor_block(data[begin.end() : end.start()]))
        begin = _BEGIN.search(data, end.end())
    if not blocks:
        raise MalformedError("OpenPGP keyring", "the file is neither a binary nor an armored keyring")
    return b"".join(blocks)


def _dearmor_block(block: bytes) -> bytes:
    _, *body = _EMPTY_LINE.split(block, 1)
    lines = b"".join(body).split()
    if lines and lines[-1].startswith(b"="):
        lines.pop()
    try:
        packets = base64.b64decode(b"".join(lines), validate=True)
    except ValueError:
        packets = b""
    if not packets:
        raise MalformedError("OpenPGP keyring", "the ASCII armor is damaged")
    return packets


def _packets(data: bytes) -> Iterator[tuple[int, int]]:
    """``(tag, offset)`` of every packet; the lengths must end with the data."""
    offset = 0
    while offset < len(data):
        tag, header, length = _header(data, offset)
        if tag == 0 or offset + header + length > len(data):
            raise MalformedError("OpenPGP keyring", f"is cut off or damaged at byte {offset}")
        if tag == _COMPRESSED:
            # The library would unpack it: a few hundred bytes can become gigabytes.
            raise MalformedError("OpenPGP keyring", f"has compressed data at byte {offset}")
        yield tag, offset
        offset += header + length


def _header(data: bytes, offset: int) -> tuple[int, int, int]:
    """Tag, header length and body length of the packet at ``offset``; tag 0 is reserved and means none.

    Partial and indeterminate lengths are for data packets only and count as damage here.
    """
    first = data[offset]
    following = data[offset + 1 : offset + 6]
    if not first & 0x80 or len(following) < 1:
        return 0, 0, 0
    if not first & 0x40:
        size = (1, 2, 4, 0)[first & 3]
        if size == 0 or len(following) < size:
            return 0, 0, 0
        return (first >> 2) & 15, 1 + size, int.from_bytes(following[:size], "big")
    tag, octet = first & 63, following[0]
    if octet < 192:
        return tag, 2, octet
    if octet < 224 and len(following) >= 2:
        return tag, 3, ((octet - 192) << 8) + following[1] + 192
    if octet == 255 and len(following) == 5:
        return tag, 6, int.from_bytes(following[1:], "big")
    return 0, 0, 0
