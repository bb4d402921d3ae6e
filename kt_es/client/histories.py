"""Reads the history of a label from a server, page by page, and keeps what was verified."""

from __future__ import annotations

import time

from kt_es.api.models import HistoryRequest
from kt_es.api.operations import HISTORY
from kt_es.client import wire
from kt_es.client.history import (
    ClaimedVersion,
    History,
    Version,
    epochs_to_look_up,
    verify_history,
    verify_versions,
)
from kt_es.client.kept import BLOCK, keep_versions, kept_versions
from kt_es.client.session import Session
from kt_es.client.trust import Lookup
from kt_es.errors import VerificationError

MAX_PAGE = 2 * 1024 * 1024
"""Bytes of one page that are read; a server puts at most 1 MiB into it."""

# A front end may be a moment behind the one that answered the lookup.
_LAG_PAUSES = (0.1, 0.2, 0.4, 0.8)


def read_history(
    session: Session, label: str, deadline: float, *, profiles: bool = False, afresh: bool = False
) -> History:
    """Every version of ``label`` up to the latest epoch. Versions that are kept are not asked for again.

    ``profiles`` and ``afresh`` have all versions fetched and verified anew. What has been verified is kept
    after every few versions, so a history that takes longer than ``deadline`` goes on where it ended.
    """
    current = session.lookup(label, None, False, deadline)
    number = 0 if current.entry is None else current.entry.version
    known = kept_versions(session.state, current.label)
    versions: list[Version] = [] if profiles or afresh else list(known)
    with session.saving():
        if len(versions) > number:
            raise VerificationError(
                "history",
                f"epoch {current.epoch} holds version {number}, though version {len(versions)} was verified "
                "before",
            )
        while len(versions) < number:
            page = _page(session, current.label, len(versions), deadline)
            page = page[: number - len(versions)]
            for at in range(0, len(page), BLOCK):
                told = page[at : at + BLOCK]
                last = versions[-1] if versions else None
                new = _verified(session, current, last, told, profiles=profiles, deadline=deadline)
                versions += new
                if len(versions) > len(known):
                    keep_versions(session.state, current.label, versions, len(new))
        return verify_history(current, versions)


def _page(session: Session, label: str, after: int, deadline: float) -> tuple[ClaimedVersion, ...]:
    """The next versions after the version ``after``, at least one."""
    # Profiles come with the lookups, which prove whether they were erased.
    request = HistoryRequest(label, profiles=False, after=after)
    for pause in (*_LAG_PAUSES, None):
        answer = session.transport.post(HISTORY.path, request, deadline, limit=MAX_PAGE)
        page = wire.read_history(answer.body)
        if page:
            return page
        if pause is not None:
            time.sleep(pause)
    raise VerificationError("history", f"ends with version {after}, though the map holds a later one")


def _verified(
    session: Session,
    current: Lookup,
    last: Version | None,
    told: tuple[ClaimedVersion, ...],
    *,
    profiles: bool,
    deadline: float,
) -> tuple[Version, ...]:
    since = {version.epoch for version in told}
    lookups = [
        session.lookup(current.label, epoch, profiles and epoch in since, deadline)
        for epoch in epochs_to_look_up(told)
    ]
    return verify_versions(current, last, told, lookups)
