"""Combines the keys of an account with the keys of an import."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kt_es.errors import MalformedError
from kt_es.formats.profiles import ProfileKey
from kt_es.importers.accounts import PROFILE_LIMIT, fits
from kt_es.importers.openpgp_keyring import merge_certificates
from kt_es.importers.packets import armored
from kt_es.importers.recognize import fingerprint_of, openpgp_certificates


def combined(present: Sequence[ProfileKey], wanted: Sequence[ProfileKey]) -> tuple[ProfileKey, ...]:
    """Return the keys of ``present`` in their order, then the keys of ``wanted`` that are not among them.

    Two keys are the same if they have the same type and fingerprint, whatever their names are. All packets of
    both copies of an OpenPGP certificate are kept, so that an old copy removes no revocation.

    Raises:
        MalformedError: the keys do not fit into one profile.
    """
    keys = {_identity(key): key for key in present}
    for key in wanted:
        identity = _identity(key)
        known = keys.get(identity)
        keys[identity] = key if known is None else _of_both(known, key)
    result = tuple(keys.values())
    if not fits(result):
        raise MalformedError("profile", f"with the keys that the account has it would exceed {PROFILE_LIMIT}")
    return result


def keeping(
    present: Sequence[ProfileKey], wanted: Sequence[ProfileKey], *, names: bool = False
) -> tuple[ProfileKey, ...]:
    """Return the keys of ``wanted``. An OpenPGP certificate keeps the packets of its copy in ``present``.

    Such a packet may be a revocation. With ``names``, a key that is in ``present`` keeps its name from there.
    """
    known = {_identity(key): key for key in present}
    return tuple(_kept(known.get(_identity(key)), key, names=names) for key in wanted)


def _kept(there: ProfileKey | None, key: ProfileKey, *, names: bool) -> ProfileKey:
    if there is None:
        return key
    data = _of_both(there, key).data if key.type == "openpgp" else key.data
    # If nothing is added, the key stays as it was given, armored or binary.
    data = key.data if _certificate(key) == data else data
    return replace(key, data=data, name=there.name if names else key.name)


def _of_both(known: ProfileKey, copy: ProfileKey) -> ProfileKey:
    """Return ``known`` with the packets that only ``copy``, another copy of the same key, has."""
    if known.type != "openpgp" or not (old := _certificate(known)) or not (new := _certificate(copy)):
        return known
    merged = merge_certificates(old, new)
    return known if merged == old else replace(known, data=merged)


def lost(present: Sequence[ProfileKey], wanted: Sequence[ProfileKey]) -> tuple[ProfileKey, ...]:
    """Return the keys of ``present`` that are not among ``wanted``."""
    kept = {_identity(key) for key in wanted}
    return tuple(key for key in present if _identity(key) not in kept)


def _identity(key: ProfileKey) -> tuple[str, str]:
    if key.type == "openpgp":
        certificate = _certificate(key)
        # A key of a profile with several certificates is identified by all of its bytes.
        return key.type, fingerprint_of("openpgp" if certificate else "raw", certificate or key.data)
    return key.type, fingerprint_of(key.type, key.data)


def _certificate(key: ProfileKey) -> bytes:
    """Return the only certificate of ``key`` in binary form; empty if ``key`` has several or none."""
    binary = next((block.packets or b"" for block in armored(key.data)), key.data)
    certificates = openpgp_certificates(binary)
    return certificates[0] if len(certificates) == 1 else b""
