"""OpenPGP keyrings, binary or ASCII-armored: one account per e-mail address in the user ids.

The file is split by packet headers (RFC 9580, section 4.2) and every certificate is published byte for
byte as it stands in the file: libraries that parse and write it again reorder what they cannot verify.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from kt_es.errors import ConfigError, MalformedError
from kt_es.formats.labels import EMAIL
from kt_es.formats.profiles import ProfileKey
from kt_es.importers.accounts import Collector, ImportPlan, read_bytes

_SECRET_KEY, _PUBLIC_KEY = 5, 6
_BEGIN = re.compile(rb"-----BEGIN PGP (?:PUBLIC|PRIVATE) KEY BLOCK-----")
_END = re.compile(rb"-----END PGP (?:PUBLIC|PRIVATE) KEY BLOCK-----")


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
        return ProfileKey(key.name, key.type, without_certifications(key.data))

    found = Collector(EMAIL, smaller)
    count = revoked = 0
    for number, data in enumerate(_certificates(read_bytes(path)), 1):
        try:
            certificate = read_certificate(data)
        except MalformedError as error:
            found.skip(f"certificate {number}", f"the certificate {error.problem}")
            continue
        count += 1
        revoked += certificate.revoked
        key = ProfileKey(certificate.fingerprint, "openpgp", certificate.data)
        if not certifications:
            key = smaller(key)
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
    from pysequoia.packet import PacketPile

    # The library reads the first block of a text only.
    blocks = []
    begin = _BEGIN.search(data)
    while begin is not None:
        end = _END.search(data, begin.end())
        if end is None:
            raise MalformedError("OpenPGP keyring", "the ASCII armor is cut off")
        blocks.append(data[begin.start() : end.end()])
        begin = _BEGIN.search(data, end.end())
    if not blocks:
        raise MalformedError("OpenPGP keyring", "the file is neither a binary nor an armored keyring")
    try:
        return b"".join(bytes(packet) for block in blocks for packet in PacketPile.from_bytes(block))
    except RuntimeError:
        raise MalformedError("OpenPGP keyring", "the ASCII armor is damaged") from None


def _packets(data: bytes) -> Iterator[tuple[int, int]]:
    """``(tag, offset)`` of every packet; the lengths must end with the data."""
    offset = 0
    while offset < len(data):
        tag, header, length = _header(data, offset)
        if tag == 0 or offset + header + length > len(data):
            raise MalformedError("OpenPGP keyring", f"is cut off or damaged at byte {offset}")
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
