"""Who may do what in the streams of a directory, as ACLs of the event log (EventStoreDB's ``$acl``).

``frontend``, ``signer`` and ``monitor`` are names of users, or of groups that users are in.
"""

from __future__ import annotations

import json

from kt_es.config import Settings
from kt_es.errors import WrongRevisionError
from kt_es.eventstore.esdb import EsdbLog
from kt_es.eventstore.streams import NO_STREAM, content_event

Acl = dict[str, list[str]]

FRONTEND, SIGNER, MONITOR, ADMINS = "frontend", "signer", "monitor", "$admins"
SETTINGS_STREAM = "$settings"


def _acl(readers: list[str], writers: list[str], keepers: list[str]) -> Acl:
    """``keepers`` write the metadata; deleting is for administrators."""
    return {"$r": readers, "$w": writers, "$d": [ADMINS], "$mr": readers, "$mw": keepers}


def stream_acls(settings: Settings) -> dict[str, Acl]:
    """The ACLs of the directory's three named streams and of ``$all``, which front ends follow."""
    names, everybody = settings.names, [SIGNER, FRONTEND, MONITOR]
    keepers = [ADMINS, SIGNER] if settings.signer.truncate_queue else [ADMINS]
    return {
        names.queue: _acl(everybody, [SIGNER, FRONTEND], keepers),
        names.mutations: _acl(everybody, [SIGNER], [ADMINS]),
        names.heads: _acl(everybody, [SIGNER], [ADMINS]),
        "$all": _acl([FRONTEND], [ADMINS], [ADMINS]),
    }


def default_acls() -> dict[str, Acl]:
    """What streams without an ACL have: the openings are such, and front ends' alone."""
    return {
        "$userStreamAcl": _acl([FRONTEND], [FRONTEND], [ADMINS]),
        "$systemStreamAcl": _acl([ADMINS], [ADMINS], [ADMINS]),
    }


def set_rights(log: EsdbLog, settings: Settings) -> bool:
    """Set them all; False if the log has defaults of its own, which then stand.

    Raises:
        AccessDeniedError: the connection string is not an administrator's.
    """
    for stream, acl in stream_acls(settings).items():
        log.restrict(stream, acl)
    wanted = json.dumps(default_acls()).encode()
    last = log.last_event(SETTINGS_STREAM)
    if last is None:
        try:
            log.append(SETTINGS_STREAM, NO_STREAM, [content_event(SETTINGS_STREAM, "$settings", wanted)])
        except WrongRevisionError:
            last = log.last_event(SETTINGS_STREAM)
    return last is None or last.data == wanted
