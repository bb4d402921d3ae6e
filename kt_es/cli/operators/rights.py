"""Set and check the rights of a directory's streams, for ``kt init --acl`` and ``kt status``.

The default rights of the server, in the stream ``$settings``, belong to all its tenants, so they are only
read. ``eventstore.rights`` defines the rights of each stream.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress

from kt_es.config.settings import Settings
from kt_es.errors import StreamGoneError, WrongRevisionError
from kt_es.eventstore.esdb import EsdbLog
from kt_es.eventstore.rights import (
    EVERYBODY,
    FRONTEND,
    READ_METADATA,
    WRITE,
    WRITE_METADATA,
    Acl,
    default_grants,
    differences,
    has_acl,
    openings_acl,
    stream_acls,
)
from kt_es.eventstore.streams import EventLog

SETTINGS_STREAM = "$settings"


def acls_of(settings: Settings) -> dict[str, Acl]:
    """Return the ACLs of the streams with fixed names."""
    return stream_acls(settings.names, signer_truncates=settings.signer.truncate_queue)


def set_rights(log: EsdbLog, settings: Settings) -> list[str]:
    """Set the ACLs of the named streams and of every stream of openings, and read them back.

    Returns a sentence for each stream and right that still differs. Only an administrator may set ACLs.
    Raises ``AccessDeniedError``.
    """
    wanted = acls_of(settings)
    for stream, acl in wanted.items():
        _restrict(log, stream, acl)
    problems = list(problems_of(log, wanted))
    acl = openings_acl()
    # Streams that an earlier version of kt-es made have no ACL of their own.
    for stream in log.stream_names(settings.names.openings_prefix):
        # Deleted streams are included: until a scavenge, users who may write their metadata can restore them.
        try:
            _restrict(log, stream, acl)
        except StreamGoneError:
            continue
        problems += problems_of(log, {stream: acl})
    return [*problems, *_obstacles(default_rights(log), settings.names.openings_prefix)]


def problems_of(log: EventLog, wanted: dict[str, Acl]) -> Iterator[str]:
    """Describe how the ACLs of streams differ from ``wanted``."""
    for stream, acl in wanted.items():
        values = log.metadata(stream).values
        if "$acl" not in values:
            yield f"{stream} has no ACL, so the server's default rights apply"
        else:
            yield from (f"{stream}: {difference}" for difference in differences(values, acl))


def default_rights(log: EventLog) -> dict[str, frozenset[str]]:
    """Return who has each right in a stream without an ACL."""
    event = log.last_event(SETTINGS_STREAM)
    try:
        values = {} if event is None else json.loads(event.data)
    except ValueError:
        values = {}
    return default_grants(values if isinstance(values, dict) else {})


def _obstacles(defaults: dict[str, frozenset[str]], prefix: str) -> Iterator[str]:
    """Describe default rights that keep front ends from making a new stream of openings private."""
    for right in (WRITE, READ_METADATA, WRITE_METADATA):
        names = defaults[right]
        if names.isdisjoint({FRONTEND, EVERYBODY}):
            yield (
                f"{prefix}*: {right} is granted to {', '.join(sorted(names)) or 'nobody'}, not {FRONTEND}, "
                f"by the default rights in {SETTINGS_STREAM} ($userStreamAcl): front ends could not begin a "
                f"stream of openings; add {FRONTEND} there"
            )


def _restrict(log: EsdbLog, stream: str, acl: Acl) -> None:
    """Set the ACL of a stream, which need not exist yet, and leave the rest of its metadata."""
    while True:
        metadata = log.metadata(stream)
        if has_acl(metadata.values, acl):
            return
        with suppress(WrongRevisionError):
            log.set_metadata(stream, {**metadata.values, "$acl": acl}, metadata.revision)
            return
