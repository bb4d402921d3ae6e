"""What a client asks a server: lookups, heads, ranges and histories, each verified before it is returned.

Every question goes the same way: fetch, verify with ``trust``, ``heads``, ``ranges`` or ``history``, store
the new trusted state and the memory of the account, return.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

from kt_es.api.codec import decode_model
from kt_es.api.models import HeadBody, HistoryRequest, LookupBody, LookupRequest, RangeBody, RangeRequest
from kt_es.api.operations import HISTORY, LOOKUP, RANGE, ProblemReason
from kt_es.api.paths import head_path
from kt_es.client.attempts import LAG_PAUSES, attempts
from kt_es.client.directory import DirectoryState, keep_sight, read_head, recalled
from kt_es.client.heads import (
    ProvenHead,
    contradictions,
    verify_freshness,
    verify_order,
    verify_reply,
)
from kt_es.client.history import (
    BLOCK,
    ClaimedVersion,
    History,
    Version,
    epochs_to_look_up,
    keep_versions,
    kept_versions,
    read_history,
    verify_history,
    verify_versions,
)
from kt_es.client.ranges import VerifiedRange, open_range, verify_range
from kt_es.client.transport import Answer, Transport
from kt_es.client.trust import Lookup, open_answer, verify_lookup
from kt_es.client.trusted import Trusted, claimed_size
from kt_es.errors import (
    EquivocationError,
    KtError,
    RefusedError,
    StaleHeadError,
    UnavailableError,
    VerificationError,
)
from kt_es.formats.heads import MapHead, SignedMapHead
from kt_es.formats.labels import normalize_label

MAX_PAGE = 2 * 1024 * 1024
"""Bytes of one page of a history that are read. A server puts at most 1 MiB into a page."""

# Seconds between two attempts to get a fresh head.
_STALE_PAUSE = 0.5

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class DirectoryHead:
    """A verified head, with the latest checkpoint of the log of map heads and one of the log of mutations."""

    proven: ProvenHead
    smh: bytes
    heads_checkpoint: str
    mutations_checkpoint: str

    @property
    def head(self) -> MapHead:
        return self.proven.head


class Session:
    """Questions to one server. Safe for threads: everything is kept in the store of ``directory``.

    With ``on_stale`` a question is asked again until its deadline when the head is too old. Without it the
    question fails at once.
    """

    def __init__(
        self,
        transport: Transport,
        directory: DirectoryState,
        *,
        slack: int,
        now: Callable[[], int],
        on_stale: Callable[[StaleHeadError], None] | None = None,
    ) -> None:
        self.transport = transport
        self.directory = directory
        self.slack = slack
        self.now = now
        self._on_stale = on_stale
        self.gate: Callable[[float], None] = lambda _: None
        """Called with the deadline before an answer is returned. What it raises is raised instead."""

    def lookup(self, label: str, epoch: int | None, profile: bool, deadline: float) -> Lookup:
        """Look up ``label`` in ``epoch``, by default the latest one."""
        return self.ask(lambda trusted: self._lookup(trusted, label, epoch, profile, deadline), deadline)

    def head(self, epoch: int | None, deadline: float, *, fresh: bool = True) -> DirectoryHead:
        """Fetch the head of ``epoch``, by default the latest one, which then has to be ``fresh``."""
        return self.ask(lambda trusted: self.asked(trusted, epoch, deadline, fresh=fresh), deadline)

    def heads(self, last: int, deadline: float) -> list[DirectoryHead]:
        """Fetch the ``last`` heads of the log, oldest first, and verify each of them and their order."""
        newest = self.head(None, deadline)
        first = max(1, newest.head.epoch - last + 1)
        heads = [*(self.head(epoch, deadline) for epoch in range(first, newest.head.epoch)), newest]
        with self.directory.saving():
            for before, after in pairwise(heads):
                verify_order(replace(after.proven.after, smh=before.smh), after.smh, after.head)
        return heads

    def range(self, label: str, first: int, last: int, deadline: float) -> VerifiedRange:
        """Fetch the entries of ``label`` in the epochs from ``first`` to ``last``, or to an earlier one."""
        return self.ask(lambda trusted: self._range(trusted, label, first, last, deadline), deadline)

    def history(
        self, label: str, deadline: float, *, profiles: bool = False, afresh: bool = False
    ) -> History:
        """Fetch the versions of ``label`` that are not kept yet, and verify that the history is complete.

        Verified versions are kept after each block, so a history that takes longer than ``deadline``
        continues where it ended.
        """
        current = self.lookup(label, None, False, deadline)
        label = current.label
        number = 0 if current.entry is None else current.entry.version
        store = self.directory.store
        known = kept_versions(store, label)
        versions: list[Version] = [] if profiles or afresh else list(known)
        with self.directory.saving():
            if len(versions) > number:
                raise VerificationError(
                    "history",
                    f"epoch {current.epoch} holds version {number}, though version {len(versions)} was "
                    "verified before",
                )
            while len(versions) < number:
                page = self._history_page(label, len(versions), deadline)[: number - len(versions)]
                for start in range(0, len(page), BLOCK):
                    claimed = page[start : start + BLOCK]
                    accepting = {version.epoch for version in claimed}
                    lookups = [
                        self.lookup(label, epoch, profiles and epoch in accepting, deadline)
                        for epoch in epochs_to_look_up(claimed)
                    ]
                    new = verify_versions(current, versions[-1] if versions else None, claimed, lookups)
                    versions += new
                    if len(versions) > len(known):
                        keep_versions(store, label, versions, len(new))
            return verify_history(current, versions)

    def ask(self, ask: Callable[[Trusted], _T], deadline: float) -> _T:
        """Call ``ask`` with the trusted state. Repeat it while the failure may be one of timing.

        The server may be a moment behind, its signer key may be new, or the head may be too old.
        """
        lags = iter(LAG_PAUSES)
        stale: StaleHeadError | None = None
        with self.directory.saving():
            while True:
                trusted = self.directory.trusted(deadline)
                try:
                    found = ask(trusted)
                    self.gate(deadline)
                    return found
                except StaleHeadError as error:
                    if self._on_stale is None or time.monotonic() + _STALE_PAUSE >= deadline:
                        raise
                    stale = error
                    self._on_stale(error)
                    time.sleep(_STALE_PAUSE)
                except UnavailableError:
                    if stale is None:
                        raise
                    # The last attempt had too little time. The reason is the head that did not come.
                    raise stale from None
                except EquivocationError:
                    raise
                except VerificationError as error:
                    # A key rotation that this client does not know yet looks like a wrong key.
                    rotated = error.step in ("config", "checkpoint")
                    if rotated and self.directory.refresh(trusted, deadline)[1].configs != trusted.configs:
                        continue
                    if error.step == "rollback" and (pause := next(lags, None)) is not None:
                        time.sleep(pause)
                        continue
                    if error.step == "consistency":
                        self._confront(self.directory.trusted(deadline), deadline)
                    raise

    def _lookup(
        self, trusted: Trusted, label: str, epoch: int | None, profile: bool, deadline: float
    ) -> Lookup:
        label = normalize_label(label, trusted.configs[0].config.label_policy)
        request = LookupRequest(label, epoch, trusted.size or None, profile)
        reply = decode_model(LookupBody, self.transport.post(LOOKUP.path, request, deadline).body)
        store = self.directory.store
        after, lookup = verify_lookup(
            trusted,
            label,
            open_answer(reply.answer),
            reply.profile,
            reply.consistency,
            now=self.now(),
            epoch=epoch,
            slack=self.slack,
            profile_wanted=profile,
            recall=lambda index: recalled(store, index),
        )
        self.directory.advance(trusted, after, deadline)
        keep_sight(store, after, lookup)
        return self.directory.with_first_use(trusted, lookup)

    def _range(self, trusted: Trusted, label: str, first: int, last: int, deadline: float) -> VerifiedRange:
        request = RangeRequest(label, first, last, trusted.size or None)
        reply = decode_model(RangeBody, self._range_answer(trusted, request, deadline).body)
        answer = open_range(reply.answer)
        after, verified = verify_range(trusted, label, answer, reply.consistency, first=first, last=last)
        self.directory.advance(trusted, after, deadline)
        return verified

    def _range_answer(self, trusted: Trusted, request: RangeRequest, deadline: float) -> Answer:
        """Ask for a range, again while the front end does not know an epoch that was verified before."""
        for _ in attempts():
            try:
                return self.transport.post(RANGE.path, request, deadline)
            except RefusedError as error:
                if error.reason != ProblemReason.UNKNOWN_EPOCH or request.last > trusted.size:
                    raise
        raise UnavailableError(
            f"the server does not know epoch {request.last} yet, which has been verified before"
        )

    def _history_page(self, label: str, after: int, deadline: float) -> tuple[ClaimedVersion, ...]:
        """Return the next versions after the version ``after``, at least one."""
        # Profiles come with the lookups, which prove whether they were erased.
        request = HistoryRequest(label, profiles=False, after=after)
        for _ in attempts():
            page = read_history(self.transport.post(HISTORY.path, request, deadline, limit=MAX_PAGE).body)
            if page:
                return page
        raise VerificationError("history", f"ends with version {after}, though the map holds a later one")

    def asked(
        self, trusted: Trusted, epoch: int | None, deadline: float, *, fresh: bool = False
    ) -> DirectoryHead:
        """Fetch the head of ``epoch``, by default the latest one, and verify it against ``trusted``."""
        reply = self._head_answer(epoch, deadline, since=trusted.size)
        return self.checked(trusted, reply, epoch, deadline, fresh=fresh)

    def checked(
        self,
        trusted: Trusted,
        reply: HeadBody,
        epoch: int | None,
        deadline: float,
        *,
        fresh: bool = False,
        proof: tuple[bytes, ...] | None = None,
    ) -> DirectoryHead:
        """Verify the head in ``reply``. ``proof`` leads from the trusted log to its log; None asks for it."""
        if proof is None:
            proof = self.directory.proof_to(trusted, claimed_size(reply.latest_checkpoint), deadline)
        proven = verify_reply(trusted, reply, epoch, proof)
        if epoch is None and fresh:
            verify_freshness(proven.head, proven.config, self.now(), self.slack)
        self.directory.advance(trusted, proven.after, deadline)
        return DirectoryHead(proven, reply.smh, reply.latest_checkpoint, reply.mutations_checkpoint)

    def _head_answer(self, epoch: int | None, deadline: float, *, since: int = 0) -> HeadBody:
        return read_head(self.transport.get(head_path(epoch, since), deadline).body)

    def _confront(self, trusted: Trusted, deadline: float) -> None:
        """After a consistency proof that failed, ask for heads that the server must still have.

        The failed proof alone convicts nobody. Two signed statements that contradict each other do.
        """
        known = None if trusted.smh is None else SignedMapHead.decode(trusted.smh).head.epoch
        for epoch in dict.fromkeys((trusted.size, known, None)):
            try:
                reply = self._head_answer(epoch, deadline)
            except KtError:
                continue
            checkpoints = (reply.heads_checkpoint, reply.latest_checkpoint)
            for contradiction in contradictions(trusted, reply.smh, checkpoints, reply.mutations_checkpoint):
                raise contradiction
