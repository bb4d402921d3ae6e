"""The rights to the streams of a directory, as ACLs of the event log (EventStoreDB's ``$acl``).

``frontend``, ``signer`` and ``monitor`` are names of users or of groups of users. A front end sets the ACL of
a stream of openings before it writes the first opening. ``kt init --acl`` sets all other ACLs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kt_es.eventstore.metadata import USER_ACL, taken_defaults
from kt_es.eventstore.streams import StreamNames

Acl = dict[str, list[str]]

FRONTEND, SIGNER, MONITOR, ADMINS, EVERYBODY = "frontend", "signer", "monitor", "$admins", "$all"
READ, WRITE, DELETE, READ_METADATA, WRITE_METADATA = RIGHTS = ("$r", "$w", "$d", "$mr", "$mw")

# The ``$tb`` of a deleted stream that may be written again.
DELETED = 2**63 - 1


def _acl(readers: list[str], writers: list[str], keepers: list[str]) -> Acl:
    """Return an ACL. ``keepers`` write the metadata, and only administrators delete the stream."""
    return {READ: readers, WRITE: writers, DELETE: [ADMINS], READ_METADATA: readers, WRITE_METADATA: keepers}


def openings_acl() -> Acl:
    """Return the ACL of every stream of openings.

    Front ends may write the metadata. They truncate the stream to remove erased openings, and they set the
    ACL again after a deletion, which removes it.
    """
    return _acl([FRONTEND], [FRONTEND], [ADMINS, FRONTEND])


def keeps_private(metadata: Mapping[str, object]) -> bool:
    """Return whether a stream of openings has its ACL or the ACL of earlier versions, which is as private."""
    return has_acl(metadata, openings_acl()) or has_acl(metadata, _acl([FRONTEND], [FRONTEND], [ADMINS]))


def stream_acls(names: StreamNames, *, signer_truncates: bool) -> dict[str, Acl]:
    """Return the ACLs of the queue, mutations and heads, and of ``$all``, which front ends read."""
    everybody = [SIGNER, FRONTEND, MONITOR]
    keepers = [ADMINS, SIGNER] if signer_truncates else [ADMINS]
    return {
        names.queue: _acl(everybody, [SIGNER, FRONTEND], keepers),
        names.mutations: _acl(everybody, [SIGNER], [ADMINS]),
        names.heads: _acl(everybody, [SIGNER], [ADMINS]),
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
