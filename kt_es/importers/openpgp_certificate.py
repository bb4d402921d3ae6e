"""One OpenPGP certificate: which parts of it may be published, and which user ids its own key signed.

The list of user ids that the library makes is unusable for old certificates: the library refuses SHA-1,
cannot verify RSA keys of more than 4096 bits, and takes minutes for a certificate with thousands of user ids.
So the library only parses packets, and ``packets.binds`` verifies self-signatures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pysequoia.packet import Packet, PacketPile, SignatureType, Tag

from kt_es.errors import MalformedError
from kt_es.importers.packets import binds
from kt_es.importers.private import private_key_in

_SECRET = (Tag.SecretKey, Tag.SecretSubkey)
# GnuPG keeps private data about trust in these packets. They are not part of a certificate.
_PRIVATE = (Tag.Trust, Tag.Marker)
_COMPONENTS = (Tag.PublicSubkey, Tag.UserID, Tag.UserAttribute)
_BINDINGS = (
    SignatureType.GenericCertification,
    SignatureType.PersonaCertification,
    SignatureType.CasualCertification,
    SignatureType.PositiveCertification,
    SignatureType.CertificationRevocation,
)


@dataclass(frozen=True, slots=True)
class UserId:
    """A user id of a certificate. Bytes that are not UTF-8 become lone surrogates, which no label contains.

    ``signed``: the certificate's own key certified or revoked the user id, so it is or was the owner's.
    """

    text: str
    signed: bool


@dataclass(frozen=True, slots=True)
class OpenPgpCertificate:
    """A certificate. ``data`` is the part that may be published, without local signatures and local trust."""

    fingerprint: str
    data: bytes
    user_ids: tuple[UserId, ...]
    revoked: bool


def read_certificate(data: bytes) -> OpenPgpCertificate:
    """Read a certificate. Raises ``MalformedError`` if it is not one, or is of an unsupported kind."""
    try:
        return _read(data)
    except RuntimeError:
        # The library raises this for every failure, even if a property of a packet has an unknown value.
        raise MalformedError(
            "OpenPGP certificate", "has a packet that is damaged or of an unknown kind"
        ) from None


def _read(data: bytes) -> OpenPgpCertificate:
    packets = list(PacketPile.from_bytes(data))
    primary = packets[0]
    if any(packet.tag in _SECRET for packet in packets):
        raise MalformedError("OpenPGP certificate", "has secret keys with it; export only the public part")
    if primary.fingerprint is None:
        raise MalformedError(
            "OpenPGP certificate", f"has the unsupported version {int.from_bytes(primary.body[:1])}"
        )
    public = [packet for packet in packets if packet.tag not in _PRIVATE and packet.exportable is not False]
    public = list(_without_unsigned_attributes(public))
    if len(public) < len(packets):
        data = _join(public)
    if not all(packet.tag in _COMPONENTS or packet.tag == Tag.Signature for packet in public[1:]):
        raise MalformedError("OpenPGP certificate", "has its packets in an impossible order")
    return OpenPgpCertificate(primary.fingerprint.upper(), data, tuple(_user_ids(public)), _revoked(public))


def _without_unsigned_attributes(packets: list[Packet]) -> Iterator[Packet]:
    """Leave out user attributes without a signature that names the certificate's own key.

    Anybody can append such attributes, and they can contain anything.
    """
    for component, signatures in _components(packets):
        if component.tag != Tag.UserAttribute or any(_own(packet, packets[0]) for packet in signatures):
            yield from (component, *signatures)


def without_certifications(data: bytes) -> bytes:
    """Return the certificate without user attributes and without signatures by keys of other people.

    Raises:
        MalformedError: It has a packet that the library can read but not write. The packet is not left out,
            because it may be a revocation.
    """
    try:
        packets = list(PacketPile.from_bytes(data))
        kept = []
        for component, signatures in _components(packets):
            if component.tag != Tag.UserAttribute:
                kept += [component, *(packet for packet in signatures if _own(packet, packets[0]))]
        return _join(kept)
    except RuntimeError:
        raise MalformedError(
            "OpenPGP certificate", "has a packet of an unknown kind, so nothing can be left out of it"
        ) from None


def _join(packets: Iterable[Packet]) -> bytes:
    return b"".join(bytes(packet) for packet in packets)


def _components(packets: Iterable[Packet]) -> list[tuple[Packet, list[Packet]]]:
    """Return every key, user id and user attribute with the signatures that follow it."""
    components: list[tuple[Packet, list[Packet]]] = []
    for packet in packets:
        if packet.tag != Tag.Signature:
            components.append((packet, []))
        elif components:
            components[-1][1].append(packet)
    return components


def _own(signature: Packet, primary: Packet) -> bool:
    if signature.issuer_fingerprint is not None:
        return signature.issuer_fingerprint == primary.fingerprint
    return signature.issuer_key_id == primary.key_id


def _revoked(packets: list[Packet]) -> bool:
    primary, signatures = _components(packets)[0]
    return any(_bound(primary, None, packet, (SignatureType.KeyRevocation,)) for packet in signatures)


def _user_ids(packets: list[Packet]) -> Iterator[UserId]:
    primary = packets[0]
    for component, signatures in _components(packets):
        if component.tag != Tag.UserID:
            continue
        user_id = component.body
        private = private_key_in(user_id)
        if private is not None:
            raise MalformedError("OpenPGP certificate", f"holds {private} in a user id")
        signed = any(_bound(primary, user_id, packet, _BINDINGS) for packet in signatures)
        # The library would replace bytes that are not UTF-8, and two addresses could become equal.
        yield UserId(user_id.decode("utf-8", "surrogateescape"), signed)


def _bound(primary: Packet, user_id: bytes | None, signature: Packet, types: Sequence[SignatureType]) -> bool:
    """Return whether ``signature`` has one of ``types`` and verifies by ``primary``."""
    try:
        if signature.signature_type not in types or not _own(signature, primary):
            return False
        return binds(primary.body, user_id, signature.body)
    except RuntimeError:
        # A signature that the library cannot read is ignored. The other signatures count.
        return False
