"""Builds a change to a label from a verified lookup, ready to be submitted. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kt_es.client.trust import Lookup
from kt_es.crypto import commitments
from kt_es.crypto.signatures import PrivateKey
from kt_es.epochs import is_authorized
from kt_es.errors import RefusedError
from kt_es.formats.entries import Entry, Mutation, check_submittable
from kt_es.formats.keys import PublicKey
from kt_es.formats.profiles import ProfileKey, encode_profile


@dataclass(frozen=True, slots=True)
class Submission:
    """A change to submit. It is sent as the same bytes until it is decided."""

    label: str
    mutation: Mutation
    opening: bytes
    profile: bytes


def build_submission(
    before: Lookup,
    profile: Sequence[ProfileKey],
    signing_keys: Sequence[PrivateKey],
    opening: bytes,
    authorized_keys: Sequence[PublicKey] | None = None,
) -> Submission:
    """Build the version after ``before``, signed by those of ``signing_keys`` that may sign it.

    Args:
        before: a verified lookup of the latest epoch.
        opening: 16 fresh random bytes.
        authorized_keys: the keys that may sign the next version. By default they are the present ones, and
            for a new label the public keys of ``signing_keys``.

    Raises:
        RefusedError: the directory would refuse the change as unauthorized.
        MalformedError: an authorized key is not valid.
    """
    current = before.current
    publics = [PublicKey(key.algorithm, key.public) for key in signing_keys]
    if authorized_keys is None:
        authorized_keys = publics if current is None else current.entry.authorized_keys
    data = encode_profile(profile)
    version = 1 if current is None else current.entry.version + 1
    entry = Entry(
        before.index,
        version,
        commitments.commit(opening, before.label, version, data),
        tuple(dict.fromkeys(authorized_keys)),
        None if current is None else current.entry_hash,
    )
    check_submittable(entry)
    allowed = {*entry.authorized_keys, *(() if current is None else current.entry.authorized_keys)}
    signers = [key for key, public in zip(signing_keys, publics, strict=True) if public in allowed]
    mutation = Mutation.sign(entry, before.head.origin, signers)
    if not is_authorized(mutation, current, before.head.origin):
        raise RefusedError(
            "unauthorized",
            "the change needs a signature by one of its own keys"
            + ("" if current is None else " and by one of the keys of the present version"),
            "signing_keys",
        )
    return Submission(before.label, mutation, opening, data)
