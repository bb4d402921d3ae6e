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
    """The keys of ``present`` in their order, and then the keys of ``wanted`` that are not among them.

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
    """The keys of ``wanted``. An OpenPGP certificate keeps what its copy in ``present`` has, as a revocation.

    With ``names`` a key that is among ``present`` keeps its name there.
    """
    known = {_identity(key): key for key in present}
    return tuple(_kept(known.get(_identity(key)), key, names=names) for key in wanted)


def _kept(there: ProfileKey | None, key: ProfileKey, *, names: bool) -> ProfileKey:
    if there is None:
        return key
    data = _of_both(there, key).data if key.type == "openpgp" else key.data
    # Armored or not, as it was given, where nothing is added.
    data = key.data if _certificate(key) == data else data
    return replace(key, data=data, name=there.name if names else key.name)


def _of_both(known: ProfileKey, copy: ProfileKey) -> ProfileKey:
    """``known`` with what only ``copy`` has, which is the same key."""
    if known.type != "openpgp" or not (old := _certificate(known)) or not (new := _certificate(copy)):
        return known
    merged = merge_certificates(old, new)
    return known if merged == old else replace(known, data=merged)


def lost(present: Sequence[ProfileKey], wanted: Sequence[ProfileKey]) -> tuple[ProfileKey, ...]:
    """The keys of ``present`` that are not among ``wanted``."""
    kept = {_identity(key) for key in wanted}
    return tuple(key for key in present if _identity(key) not in kept)


def _identity(key: ProfileKey) -> tuple[str, str]:
    if key.type == "openpgp":
        certificate = _certificate(key)
        # Several certificates in one key of a profile are identified by all of their bytes.
        return key.type, fingerprint_of("openpgp" if certificate else "raw", certificate or key.data)
    return key.type, fingerprint_of(key.type, key.data)


def _certificate(key: ProfileKey) -> bytes:
    """The only certificate of ``key`` in binary form; empty if ``key`` has several certificates or none."""
    binary = next((block.packets or b"" for block in armored(key.data)), key.data)
    certificates = openpgp_certificates(binary)
    return certificates[0] if len(certificates) == 1 else b""
