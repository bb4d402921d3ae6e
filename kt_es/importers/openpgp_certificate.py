"""One OpenPGP certificate: what may be published of it and which user ids are really its own.

The library's own list of user ids is of no use for old certificates: its policy refuses SHA-1, and it
cannot verify RSA keys of more than 4096 bits. So it parses the packets, and version 4 self-signatures
are verified in ``openpgp_bindings``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pysequoia import Cert
from pysequoia.packet import Packet, PacketPile, SignatureType, Tag

from kt_es.errors import MalformedError
from kt_es.importers.openpgp_bindings import binds

_SECRET = (Tag.SecretKey, Tag.SecretSubkey)
# GnuPG keeps its private notes about trust in such packets; they are not part of a certificate.
_PRIVATE = (Tag.Trust, Tag.Marker)
_BINDINGS = (
    SignatureType.GenericCertification,
    SignatureType.PersonaCertification,
    SignatureType.CasualCertification,
    SignatureType.PositiveCertification,
    SignatureType.CertificationRevocation,
)


@dataclass(frozen=True, slots=True)
class UserId:
    """``signed``: the certificate's own key certified it or revoked it, so it is or was the owner's."""

    text: str
    signed: bool


@dataclass(frozen=True, slots=True)
class Certificate:
    """``data`` is what may be published: all of it but local signatures and local trust."""

    fingerprint: str
    data: bytes
    user_ids: tuple[UserId, ...]
    revoked: bool


def read_certificate(data: bytes) -> Certificate:
    """Raises ``MalformedError`` for what is no certificate or one of an unsupported kind."""
    try:
        return _read(data)
    except RuntimeError:
        # The library raises nothing else, also where a property of a packet has an unknown value.
        raise MalformedError(
            "OpenPGP certificate", "has a packet that is damaged or of an unknown kind"
        ) from None


def _read(data: bytes) -> Certificate:
    packets = _parse(data)
    primary = packets[0]
    if any(packet.tag in _SECRET for packet in packets):
        raise MalformedError("OpenPGP certificate", "has secret keys with it; export only the public part")
    if primary.fingerprint is None:
        raise MalformedError(
            "OpenPGP certificate", f"has the unsupported version {int.from_bytes(primary.body[:1])}"
        )
    public = [packet for packet in packets if packet.tag not in _PRIVATE and packet.exportable is not False]
    if len(public) < len(packets):
        data = _join(public)
    try:
        cert = Cert.from_bytes(data)
    except RuntimeError:
        raise MalformedError("OpenPGP certificate", "has its packets in an impossible order") from None
    return Certificate(
        primary.fingerprint.upper(), data, tuple(_user_ids(cert, public)), _revoked(cert, public)
    )


def without_certifications(data: bytes) -> bytes:
    """The certificate without photographs and without the signatures of other people's keys.

    ``data`` is that of a ``Certificate``. Raises ``MalformedError`` if it has a packet that can be read
    but not written: nothing of the owner's is left out instead, it could be a revocation.
    """
    try:
        packets = _parse(data)
        kept = []
        for component, signatures in _components(packets):
            if component.tag != Tag.UserAttribute:
                kept += [component, *(packet for packet in signatures if _own(packet, packets[0]))]
        return _join(kept)
    except RuntimeError:
        raise MalformedError(
            "OpenPGP certificate", "has a packet of an unknown kind, so nothing can be left out of it"
        ) from None


def _parse(data: bytes) -> list[Packet]:
    return list(PacketPile.from_bytes(data))


def _join(packets: Iterable[Packet]) -> bytes:
    return b"".join(bytes(packet) for packet in packets)


def _components(packets: Iterable[Packet]) -> Iterator[tuple[Packet, list[Packet]]]:
    """Every key, user id and user attribute with the signatures that follow it."""
    component: Packet | None = None
    signatures: list[Packet] = []
    for packet in packets:
        if packet.tag == Tag.Signature:
            signatures.append(packet)
            continue
        if component is not None:
            yield component, signatures
        component, signatures = packet, []
    if component is not None:
        yield component, signatures


def _own(signature: Packet, primary: Packet) -> bool:
    if signature.issuer_fingerprint is not None:
        return signature.issuer_fingerprint == primary.fingerprint
    return signature.issuer_key_id == primary.key_id


def _revoked(cert: Cert, packets: list[Packet]) -> bool:
    primary, signatures = next(_components(packets))
    if primary.body[0] != 4:
        return cert.is_revoked
    return any(
        _own(packet, primary)
        and packet.signature_type == SignatureType.KeyRevocation
        and binds(primary.body, None, packet.body)
        for packet in signatures
    )


def _user_ids(cert: Cert, packets: list[Packet]) -> Iterator[UserId]:
    primary = packets[0]
    # Versions after 4 are younger than the library's policy, so its verdict on them can be relied on.
    valid = None if primary.body[0] == 4 else _valid_user_ids(cert)
    for component, signatures in _components(packets):
        if component.tag != Tag.UserID:
            continue
        text = component.user_id or ""
        if valid is not None:
            yield UserId(text, text in valid)
            continue
        own = [
            packet.body
            for packet in signatures
            if _own(packet, primary) and packet.signature_type in _BINDINGS
        ]
        yield UserId(text, any(binds(primary.body, component.body, body) for body in own))


def _valid_user_ids(cert: Cert) -> frozenset[str]:
    try:
        return frozenset(str(user_id) for user_id in cert.user_ids)
    except RuntimeError:
        return frozenset()
