"""Imports OpenPGP keyrings, binary or ASCII-armored: one account for each e-mail address in the user ids.

The file is split by packet headers (RFC 9580, section 4.2), and the packets of a certificate are published
byte for byte. A library that parses and writes a certificate reorders the packets that it cannot verify.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kt_es.errors import MalformedError
from kt_es.extras import require
from kt_es.formats.entries import ProfileKey
from kt_es.formats.labels import EMAIL
from kt_es.importers.accounts import Collector, ImportPlan, read_bytes
from kt_es.importers.openpgp_keyring import merge_certificates, split_keyring

if TYPE_CHECKING:
    from kt_es.importers.openpgp_certificate import OpenPgpCertificate, UserId

_BLANKS = " \t\r\n"


def read_openpgp(path: Path, *, certifications: bool = True) -> ImportPlan:
    """Return the accounts of the keyring at ``path``.

    A user id counts only if the certificate's own key signed it, whatever the age of the signature. Revoked
    and expired certificates and user ids are published too: they contain their revocation, so people who look
    them up see it. Certificates with the same address share an account. Copies of one certificate become one
    certificate with the packets of all copies, including revocations. Non-exportable signatures and secret
    keys are never published. A damaged part is skipped; its neighbours are not.

    ``certifications``: publish signatures by keys of other people. They are left out in any case if a profile
    would be too large. Raises ``ConfigError`` or ``MalformedError``.
    """
    require("openpgp", "reading OpenPGP keyrings")
    from kt_es.importers.openpgp_certificate import read_certificate, without_certifications

    def smaller(key: ProfileKey) -> ProfileKey:
        return replace(key, data=without_certifications(key.data))

    def smaller_if_possible(key: ProfileKey) -> ProfileKey:
        try:
            return smaller(key)
        except MalformedError:
            return key

    found = Collector(EMAIL, smaller_if_possible)
    # By fingerprint: where the first copy is in the file, and the certificate merged from all copies.
    copies: dict[str, tuple[str, OpenPgpCertificate]] = {}
    problems = []
    number = 0
    for piece in split_keyring(read_bytes(path)):
        if piece.problem:
            problems.append(f"{piece.where}: {piece.problem}")
            found.skip(piece.where, piece.problem)
            continue
        number += 1
        where = f"certificate {number}"
        try:
            certificate = read_certificate(piece.data)
        except MalformedError as error:
            found.skip(where, f"the certificate {error.problem}")
            continue
        first, known = copies.get(certificate.fingerprint, (where, certificate))
        merged = merge_certificates(known.data, certificate.data)
        copies[certificate.fingerprint] = first, known if merged == known.data else read_certificate(merged)
    if number == 0:
        raise MalformedError(
            "OpenPGP keyring", problems[0] if problems else "has no certificate: write one with gpg --export"
        )
    revoked = 0
    for where, certificate in copies.values():
        key = ProfileKey(certificate.fingerprint, "openpgp", certificate.data)
        try:
            key = key if certifications else smaller(key)
        except MalformedError as error:
            found.skip(where, f"the certificate {error.problem}")
            continue
        revoked += certificate.revoked
        _add(found, where, key, certificate.user_ids)
    return found.plan(len(copies), revoked)


def _add(found: Collector, where: str, key: ProfileKey, user_ids: Sequence[UserId]) -> None:
    if not user_ids:
        found.skip(key.name, "the certificate has no user id", where)
    for user_id in user_ids:
        address = mailbox(user_id.text)
        if address is None:
            found.skip(user_id.text, "the user id has no e-mail address", where)
        elif not user_id.signed:
            found.skip(user_id.text, "the user id has no valid signature by the certificate's own key", where)
        else:
            found.add(address, key, where)


def mailbox(user_id: str) -> str | None:
    """Return the address in a user id, as it is written there; None if there is none.

    The address is in angle brackets at the end of the user id, or is the whole user id (RFC 9580, section
    5.11; RFC 2822, section 3.4). Only ASCII white space is removed. Other white space is part of the text.
    """
    text = user_id.strip(_BLANKS)
    if text.endswith(">"):
        text = text[text.rfind("<") + 1 : -1].strip(_BLANKS)
    elif any(character.isspace() for character in text):
        return None
    return text if "@" in text else None
