"""Compares one signed checkpoint with the log that a client trusts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kt_es.api.paths import head_path
from kt_es.client.directory import read_head
from kt_es.client.heads import contradictions
from kt_es.client.session import DirectoryHead, Session
from kt_es.client.trusted import Trusted
from kt_es.errors import (
    EquivocationError,
    MalformedError,
    RefusedError,
    UnavailableError,
    VerificationError,
)
from kt_es.evidence import contradicting_head, shown_by
from kt_es.formats.heads import Checkpoint, LogName, mutations_origin
from kt_es.merkle.verify import log_root_from_consistency

_PAUSE: Final = 0.3
"""Seconds between two questions to a front end that is behind."""

STEP: Final = "comparison"
"""The step of a ``VerificationError`` about a log that the directory signed, and that is another one."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A checkpoint of ``log`` that ``where`` shows, and the times until which the front end may answer.

    Until ``catch_up`` it may get the leaves that it lacks. Both times are of ``time.monotonic``.
    """

    log: LogName
    where: str
    deadline: float
    catch_up: float


class AheadError(UnavailableError):
    """The client's front end has only ``size`` leaves of a log that was signed with more, ``claimed``.

    ``head`` is its latest head. ``max_interval`` of the directory is in ms.
    """

    def __init__(self, url: str, claimed: Checkpoint, size: int, head: DirectoryHead) -> None:
        super().__init__(
            f"{url} has {size} of the {claimed.size} leaves of {claimed.origin} that are shown elsewhere; it "
            "is behind, or withholds them"
        )
        self.claimed = claimed
        self.size = size
        self.head = head

    @property
    def max_interval(self) -> int:
        return self.head.proven.config.max_interval

    def forgotten(self) -> UnavailableError:
        """Return the error for a checkpoint that is not kept until it can be compared."""
        return UnavailableError(f"{self}; so many checkpoints wait already that this one is not kept")


def compare_checkpoint(
    session: Session,
    log: LogName,
    encoded: bytes,
    deadline: float,
    *,
    where: str = "",
    waits: bool = True,
) -> int:
    """Compare one checkpoint, and return its size. Sentences name ``where``, the place that showed it.

    Raises:
        EquivocationError: The directory signed two logs that cannot both be true.
        VerificationError: Step "checkpoint": the directory has not signed the checkpoint. Step ``STEP``: it
            signed another log, and its front end withholds the second statement.
        AheadError: The front end has fewer leaves; with ``waits`` only after the deadline.
        UnavailableError: Nobody answers at the client's front end.
    """
    shown = Claimed(log, where, deadline, deadline if waits else 0.0)
    try:
        text = encoded.decode()
    except UnicodeDecodeError:
        raise VerificationError("checkpoint", "is not valid UTF-8") from None
    compare = _compare_heads if log == "heads" else _compare_mutations
    return session.ask(lambda trusted: compare(session, trusted, text, shown), deadline)


def named(error: EquivocationError, session: Session, where: str) -> EquivocationError:
    """Return ``error`` with both places that have shown a statement in its sentence."""
    ours = session.transport.base_url
    return shown_by(error, where, ours) if where else shown_by(error, ours)


def _compare_heads(session: Session, trusted: Trusted, text: str, shown: Claimed) -> int:
    claimed = trusted.open(text, 0)
    head = _caught_up(session, trusted, claimed, lambda head: head.proven.checkpoint.size, shown)
    ours = head.proven.checkpoint
    if _is_earlier(session, "heads", claimed, ours, shown.deadline):
        return claimed.size
    # Signed by the directory, and another log: its front end must still have the checkpoint of that size.
    try:
        reply = read_head(session.transport.get(head_path(claimed.size), shown.deadline).body)
    except RefusedError:
        raise _withheld(session, claimed, shown) from None
    for contradiction in contradictions(
        head.proven.after, reply.smh, [reply.heads_checkpoint, reply.latest_checkpoint, text]
    ):
        raise named(contradiction, session, shown.where)
    raise _withheld(session, claimed, shown)


def _compare_mutations(session: Session, trusted: Trusted, text: str, shown: Claimed) -> int:
    origin = mutations_origin(trusted.origin)
    claimed = trusted.open(text, 0, origin)
    head = _caught_up(session, trusted, claimed, lambda head: head.head.log_size, shown)
    ours = Checkpoint(origin, head.head.log_size, head.head.log_root)
    if _is_earlier(session, "mutations", claimed, ours, shown.deadline):
        return claimed.size
    low, high = 1, head.head.epoch
    while low <= high:
        middle = (low + high) // 2
        try:
            there = session.asked(head.proven.after, middle, shown.deadline)
        except RefusedError:
            break
        if there.head.log_size == claimed.size:
            after = there.proven.after
            found = contradicting_head(STEP, after.origin, after.configs, there.smh, text)
            if found is not None:
                raise named(found, session, shown.where)
            break
        low, high = (middle + 1, high) if there.head.log_size < claimed.size else (low, middle - 1)
    raise _withheld(session, claimed, shown)


def _caught_up(
    session: Session,
    trusted: Trusted,
    claimed: Checkpoint,
    size_of: Callable[[DirectoryHead], int],
    shown: Claimed,
) -> DirectoryHead:
    """Return a verified head of the client's front end whose log is at least as long as ``claimed``.

    Raises ``AheadError`` if it has none in time.
    """
    while True:
        head = session.asked(trusted, None, shown.deadline)
        trusted = head.proven.after
        if size_of(head) >= claimed.size:
            return head
        if time.monotonic() + _PAUSE >= shown.catch_up:
            raise AheadError(session.transport.base_url, claimed, size_of(head), head)
        time.sleep(_PAUSE)


def _is_earlier(
    session: Session, log: LogName, claimed: Checkpoint, ours: Checkpoint, deadline: float
) -> bool:
    """Return whether the front end proves that ``claimed`` is an earlier state of ``ours``."""
    if claimed.size == 0:
        return True
    if claimed.size == ours.size:
        return claimed.root == ours.root
    proof = session.directory.consistency(log, claimed.size, ours.size, deadline)
    try:
        return log_root_from_consistency(claimed.size, ours.size, claimed.root, proof) == ours.root
    except (MalformedError, VerificationError):
        return False


def _withheld(session: Session, claimed: Checkpoint, shown: Claimed) -> VerificationError:
    by = f" (shown by {shown.where})" if shown.where else ""
    return VerificationError(
        STEP,
        f"the directory signed another log of {shown.log} with {claimed.size} leaves{by} than "
        f"{session.transport.base_url} shows, which does not show its own statement of that size",
    )
