"""Metadata of streams: the rules by which servers accept it, and the rights to a directory's streams.

EventStoreDB reads the fields below. If one of them has a wrong type, it ignores all metadata of the stream:
no limit applies, and the ACL has no effect. The node does the same. kt-es protects private streams with
metadata that a server accepts.

``frontend``, ``signer`` and ``monitor`` are names of users or of groups of users. A front end sets the ACL of
a stream of openings before it writes the first opening. ``kt init --acl`` sets all other ACLs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final

from kt_es.eventstore.streams import NO_STREAM, Append, StreamNames

JSON = "application/json"
MAX_COUNT, MAX_AGE, TRUNCATE_BEFORE, ACL = "$maxCount", "$maxAge", "$tb", "$acl"
USER_ACL, SYSTEM_ACL = "$userStreamAcl", "$systemStreamAcl"
_CACHE_CONTROL, _TEMPORARY = "$cacheControl", "$tmp"
READ, WRITE, DELETE, READ_METADATA, WRITE_METADATA = RIGHTS = ("$r", "$w", "$d", "$mr", "$mw")
FRONTEND, SIGNER, MONITOR, ADMINS, EVERYBODY = "frontend", "signer", "monitor", "$admins", "$all"
# The ``$tb`` of a deleted stream that may be written again.
DELETED = 2**63 - 1
_INT64 = 2**63
_SECONDS = _INT64 // 10_000_000  # a span of time is kept in units of 100 ns

Acl = dict[str, list[str]]


def json_object(data: bytes) -> dict[str, object]:
    """Return the JSON object in ``data``, or an empty one if ``data`` is anything else."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        # Deeply nested brackets cause RecursionError. Anybody can write them, and they must not stop a
        # process.
        return {}
    return values if isinstance(values, dict) else {}


def taken_of(content_type: str, data: bytes) -> Mapping[str, object]:
    """Return the metadata that a server accepts from an event. They are empty unless it is marked as JSON."""
    return taken(json_object(data)) if content_type == JSON else {}


def taken(values: Mapping[str, object]) -> Mapping[str, object]:
    """Return ``values``, or no values if a field that the server reads has a wrong type."""
    return values if all(_is_of_its_kind(name, value) for name, value in values.items()) else {}


def taken_defaults(values: Mapping[str, object]) -> Mapping[str, object]:
    """Return ``values``, the default rights in ``$settings``, or no values if one of the ACLs is invalid."""
    return values if all(_is_acl(values.get(name, {})) for name in (USER_ACL, SYSTEM_ACL)) else {}


def _is_of_its_kind(name: str, value: object) -> bool:
    if name in {MAX_COUNT, TRUNCATE_BEFORE}:
        return _is_integer(value, _INT64)
    if name in {MAX_AGE, _CACHE_CONTROL}:
        return _is_integer(value, _SECONDS)
    if name == _TEMPORARY:
        return isinstance(value, bool)
    return name != ACL or _is_acl(value)


def _is_integer(value: object, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -limit <= value < limit


def _is_acl(value: object) -> bool:
    """Return whether ``value`` is an object of rights, each granted to a name or to a list of names."""
    return isinstance(value, Mapping) and all(
        right in RIGHTS and _is_names(names) for right, names in value.items()
    )


def _is_names(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(name, str) for name in value)
    return isinstance(value, str)


def _acl(readers: list[str], writers: list[str], keepers: list[str]) -> Acl:
    """Return an ACL. ``keepers`` write the metadata, and only administrators delete the stream."""
    return {READ: readers, WRITE: writers, DELETE: [ADMINS], READ_METADATA: readers, WRITE_METADATA: keepers}


def openings_acl() -> Acl:
    """Return the ACL of every stream of openings.

    Front ends may write the metadata. They truncate the stream to remove erased openings, and they set the
    ACL again after a deletion, which removes it.
    """
    return _acl([FRONTEND], [FRONTEND], [ADMINS, FRONTEND])


# One object, which is encoded once for many streams.
_OPENINGS_METADATA: Final[Mapping[str, object]] = {ACL: openings_acl()}


def first_acl(stream: str) -> Append:
    """Return the append that makes a stream of openings private which has no metadata yet."""
    return Append(stream, NO_STREAM, metadata=_OPENINGS_METADATA)


def keeps_private(metadata: Mapping[str, object]) -> bool:
    """Return whether a stream of openings has its ACL or the ACL of earlier versions, which is as private."""
    return has_acl(metadata, openings_acl()) or has_acl(metadata, _acl([FRONTEND], [FRONTEND], [ADMINS]))


def stream_acls(names: StreamNames, *, signer_truncates: bool) -> dict[str, Acl]:
    """Return the ACLs of the streams with fixed names, and of ``$all``, which front ends read.

    Whoever writes cosignatures (``kt cosign`` has the rights of the signer) also bounds their stream.
    """
    everybody = [SIGNER, FRONTEND, MONITOR]
    keepers = [ADMINS, SIGNER] if signer_truncates else [ADMINS]
    return {
        names.queue: _acl(everybody, [SIGNER, FRONTEND], keepers),
        names.mutations: _acl(everybody, [SIGNER], [ADMINS]),
        names.heads: _acl(everybody, [SIGNER], [ADMINS]),
        names.cosignatures: _acl(everybody, [SIGNER, FRONTEND], [ADMINS, SIGNER]),
        "$all": _acl([FRONTEND], [ADMINS], [ADMINS]),
    }


def has_acl(metadata: Mapping[str, object], acl: Acl) -> bool:
    """Return whether a stream with ``metadata`` grants what ``acl`` grants, and nothing else."""
    return not list(differences(metadata, acl))


def differences(metadata: Mapping[str, object], acl: Acl) -> Iterator[str]:
    """Yield a sentence for each right that ``metadata`` does not grant to the same names as ``acl``."""
    there = metadata.get("$acl")
    held = there if isinstance(there, Mapping) else {}
    for right, names in acl.items():
        if granted(held, right) != frozenset(names):
            yield f"{right} is granted to {_listed(held.get(right))}, not to {_listed(names)}"


def granted(acl: Mapping[str, object], right: str) -> frozenset[str] | None:
    """Return the users and groups to which ``acl`` grants ``right``, or None if ``acl`` does not name it."""
    names = acl.get(right)
    if isinstance(names, list):
        return frozenset(names)
    return frozenset({names}) if isinstance(names, str) else None


def default_grants(settings: Mapping[str, object]) -> dict[str, frozenset[str]]:
    """Return the rights to a stream without an ACL. ``settings`` is the content of ``$settings``."""
    defaults = taken_defaults(settings).get(USER_ACL)
    acl = defaults if isinstance(defaults, Mapping) else {}
    everybody = frozenset({EVERYBODY})
    return {right: everybody if (names := granted(acl, right)) is None else names for right in RIGHTS}


def _listed(names: object) -> str:
    if names is None:
        return "whoever the default rights name"
    return ", ".join(map(str, names)) or "nobody" if isinstance(names, list) else str(names)
