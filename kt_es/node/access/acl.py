"""The rights of callers on streams: pure decisions over access control lists.

An ACL is the object ``$acl`` in a stream's metadata. Its keys are those of ``Permission``; its values are a
name or a list of names of users or groups. ``$all`` names everybody who has logged in. A permission that a
stream's ACL does not mention is looked up in the default ACLs in the last event of the stream ``$settings``
(``$userStreamAcl``, ``$systemStreamAcl``). If they do not mention it either, it is ``$all`` for a user's
stream and ``$admins`` for a system stream, whose name begins with ``$``. Members of ``$admins`` may do
everything.

The stream ``$$x`` holds the metadata of ``x``: to read or write it takes ``$mr`` or ``$mw`` on ``x``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from kt_es.node.store.transaction import META

ALL = "$all"
ADMINS = "$admins"
OPS = "$ops"
SETTINGS = "$settings"


class Permission(Enum):
    """The permissions that an ACL grants. Each value is a key of the ACL."""

    READ = "$r"
    WRITE = "$w"
    DELETE = "$d"
    READ_METADATA = "$mr"
    WRITE_METADATA = "$mw"


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a method. ``roles`` are its name, its groups and ``$all``; empty if anonymous."""

    roles: frozenset[str]

    @property
    def known(self) -> bool:
        """Whether the caller has logged in, or counts as logged in."""
        return bool(self.roles)

    @property
    def is_admin(self) -> bool:
        return ADMINS in self.roles

    @property
    def is_operator(self) -> bool:
        return ADMINS in self.roles or OPS in self.roles


ANONYMOUS = Caller(frozenset())
ADMIN = Caller(frozenset({ADMINS, ALL}))  # everybody, if nobody has to log in


def user(name: str, groups: frozenset[str]) -> Caller:
    return Caller(groups | {name, ALL})


def asked_of(stream: str, permission: Permission) -> tuple[str, Permission]:
    """Return the stream whose ACL decides, and the permission that it has to grant.

    For ``$$x`` it is a metadata permission on ``x``. Deleting metadata counts as writing it.
    """
    if not stream.startswith(META) or stream == META:
        return stream, permission
    reads = permission in {Permission.READ, Permission.READ_METADATA}
    return stream.removeprefix(META), Permission.READ_METADATA if reads else Permission.WRITE_METADATA


def _granted(acl: object, permission: Permission) -> frozenset[str] | None:
    """Return the roles to which an ACL grants a permission; None if it does not mention it."""
    names = acl.get(permission.value) if isinstance(acl, Mapping) else None
    if isinstance(names, list):
        return frozenset(names)
    return frozenset({names}) if isinstance(names, str) else None


Metadata = Callable[[str], Mapping[str, object]]


def allows(
    caller: Caller, stream: str, permission: Permission, metadata: Metadata, settings: Metadata
) -> bool:
    """Return whether ``caller`` has a permission on a stream.

    ``metadata(x)`` is the metadata of stream ``x``, ``settings(x)`` is the last event of ``x``, both as a
    server accepts them (``eventstore.metadata``).
    """
    if caller.is_admin:
        return True
    if not caller.known:
        return False
    stream, permission = asked_of(stream, permission)
    granted = _granted(metadata(stream).get("$acl"), permission)
    if granted is None:
        system = stream.startswith("$")
        defaults = settings(SETTINGS).get("$systemStreamAcl" if system else "$userStreamAcl")
        granted = _granted(defaults, permission)
        if granted is None:
            granted = frozenset({ADMINS if system else ALL})
    return not caller.roles.isdisjoint(granted)
