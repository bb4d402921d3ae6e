"""Who may do what with a stream: pure decisions over access control lists.

An ACL is the object ``$acl`` in a stream's metadata; its keys are those of ``Permission``, its values a
name or a list of names, of users or groups. ``$all`` names everybody who has logged in. What a stream's
ACL does not say, the default ACLs in the last event of the stream ``$settings`` say
(``$userStreamAcl``, ``$systemStreamAcl``), and what those do not say either is ``$all`` for a user's
stream and ``$admins`` for a system stream, whose name begins with ``$``. Members of ``$admins`` may do
everything.

The stream ``$$x`` holds the metadata of ``x``: who reads or writes it needs ``$mr`` or ``$mw`` on ``x``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

ALL = "$all"
ADMINS = "$admins"
OPS = "$ops"
SETTINGS = "$settings"
_META = "$$"


class Permission(Enum):
    """What an ACL grants, by its key there."""

    READ = "$r"
    WRITE = "$w"
    DELETE = "$d"
    READ_METADATA = "$mr"
    WRITE_METADATA = "$mw"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: ``roles`` are the user's name, its groups, and ``$all``; nothing for the anonymous."""

    roles: frozenset[str]

    @property
    def known(self) -> bool:
        """Logged in (or counted as such)."""
        return bool(self.roles)

    @property
    def is_admin(self) -> bool:
        """A member of ``$admins``."""
        return ADMINS in self.roles

    @property
    def is_operator(self) -> bool:
        """A member of ``$admins`` or ``$ops``."""
        return ADMINS in self.roles or OPS in self.roles


ANONYMOUS = Caller(frozenset())
ADMIN = Caller(frozenset({ADMINS, ALL}))  # everybody, where nobody has to log in


def user(name: str, groups: frozenset[str]) -> Caller:
    """A user who has logged in."""
    return Caller(groups | {name, ALL})


def asked_of(stream: str, permission: Permission) -> tuple[str, Permission]:
    """The stream whose ACL decides, and what it has to grant: of ``$$x`` it is the metadata of ``x``.

    To delete metadata is to change it.
    """
    if not stream.startswith(_META) or len(stream) == len(_META):
        return stream, permission
    reads = permission in {Permission.READ, Permission.READ_METADATA}
    return stream.removeprefix(_META), Permission.READ_METADATA if reads else Permission.WRITE_METADATA


def _granted(acl: object, permission: Permission) -> frozenset[str] | None:
    """The roles that an ACL grants a permission; None if it says nothing of it."""
    names = acl.get(permission.value) if isinstance(acl, Mapping) else None
    if isinstance(names, list):
        return frozenset(names)
    return frozenset({names}) if isinstance(names, str) else None


Metadata = Callable[[str], Mapping[str, object]]


def allows(
    caller: Caller, stream: str, permission: Permission, metadata: Metadata, settings: Metadata
) -> bool:
    """Whether ``caller`` may do it. ``metadata(x)`` is the metadata of stream ``x``, ``settings(x)`` the
    last event of ``x``, each as far as a server takes it (``eventstore.metadata``).
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
