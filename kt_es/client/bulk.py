"""Publishes many accounts: signs and submits them in threads, then confirms each of them in the map.

An account whose present version already has the wanted keys is left unchanged. So an interrupted import is
resumed by repeating it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

from kt_es.client.changes import Submission, build_submission
from kt_es.client.client import Client
from kt_es.client.trust import Lookup
from kt_es.crypto import hashes
from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import MalformedError, RefusedError
from kt_es.formats.entries import OPENING_LENGTH, ProfileKey, PublicKey, encode_profile

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One account as the directory should have it."""

    label: str
    profile: tuple[ProfileKey, ...]


@dataclass(slots=True)
class BulkReport:
    """Numbers of accounts, and pairs of a label and the reason for ``refused``.

    Of the published accounts that existed before, ``extended`` ones kept all their keys; ``replaced``
    ones lost some.
    """

    published: int
    unchanged: int
    refused: list[tuple[str, str]]
    extended: int = 0
    replaced: int = 0


@dataclass(frozen=True, slots=True)
class Merging:
    """How the keys of an account and the keys of a file are combined.

    ``combine`` makes a profile of both. ``lost`` returns the keys of the first that are not in the second.
    """

    combine: Callable[[Sequence[ProfileKey], Sequence[ProfileKey]], tuple[ProfileKey, ...]]
    lost: Callable[[Sequence[ProfileKey], Sequence[ProfileKey]], Sequence[ProfileKey]]


class BulkAction(Enum):
    """What publishing does to an account."""

    NEW = "new"
    UNCHANGED = "unchanged"
    EXTENDED = "extended"
    REPLACED = "replaced"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Planned:
    """An account as it would be published. ``profile`` is the new profile, ``lost`` the lost keys."""

    label: str
    action: BulkAction
    profile: tuple[ProfileKey, ...]
    lost: tuple[ProfileKey, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class BulkProgress:
    """Called for each account that was submitted or is unchanged, and for each confirmed one, by threads."""

    submitted: Callable[[], None]
    confirmed: Callable[[], None]


def publish_all(
    client: Client,
    accounts: Iterable[Wanted],
    keys: Sequence[PrivateKey],
    progress: BulkProgress,
    *,
    merging: Merging,
    replace_keys: bool = False,
    jobs: int = 8,
    patience: float = 600.0,
) -> BulkReport:
    """Publish ``accounts``, signed by ``keys``. A verified lookup confirms each account before it is counted.

    Refusals are collected in the report. An account is refused, too, if it has an authorized key that is
    neither in ``keys`` nor in a version that one of ``keys`` signed.

    Args:
        client: The client of the directory, which several threads use.
        accounts: The wanted accounts, which may be a generator.
        keys: The private keys that sign, and the first authorized keys of new accounts.
        progress: The callbacks for a progress bar.
        merging: How the keys that an account has now are combined with the wanted keys.
        replace_keys: Drop the keys that an account has now; by default they stay beside the wanted keys.
        jobs: Number of threads.
        patience: Seconds that one account waits for an unavailable server. After that time
            ``UnavailableError`` ends the call. Call again to resume.
    """
    work = _Bulk(client, keys, progress, _Plans(client, merging, replace_keys, patience))
    with ThreadPoolExecutor(jobs, thread_name_prefix="publish") as pool:
        submitted = list(_mapped(pool, work.submit, accounts, 4 * jobs))
        pending = [submission for submission in submitted if submission is not None]
        for _ in _mapped(pool, work.confirm, pending, 4 * jobs):
            pass
    return work.report


def plan_all(
    client: Client,
    accounts: Iterable[Wanted],
    *,
    merging: Merging,
    replace_keys: bool = False,
    jobs: int = 8,
    patience: float = 600.0,
) -> list[Planned]:
    """Return what ``publish_all`` would do now, in the order of ``accounts``. Nothing is signed or sent.

    Args:
        client, accounts, merging, replace_keys, jobs, patience: As for ``publish_all``.
    """
    plans = _Plans(client, merging, replace_keys, patience)
    with ThreadPoolExecutor(jobs, thread_name_prefix="plan") as pool:
        return list(pool.map(plans.planned, accounts))


@dataclass(frozen=True, slots=True)
class _Plans:
    """Decides what to publish for an account, from its proven version. Called by several threads."""

    client: Client
    merging: Merging
    replace_keys: bool
    patience: float

    def planned(self, wanted: Wanted) -> Planned:
        try:
            return self.plan(wanted)[1]
        except MalformedError as error:
            return Planned(wanted.label, BulkAction.REFUSED, wanted.profile, problem=str(error))

    def plan(self, wanted: Wanted) -> tuple[Lookup, Planned]:
        before = self.client.lookup(wanted.label, profile=False, timeout=self.patience)
        if before.entry is None:
            return before, Planned(before.label, BulkAction.NEW, wanted.profile)
        if _has_profile(before, wanted):
            return before, Planned(before.label, BulkAction.UNCHANGED, wanted.profile)
        before = self.client.lookup(wanted.label, timeout=self.patience)
        # An account whose profile was erased has no keys that could be kept.
        present = before.profile or ()
        lost: tuple[ProfileKey, ...] = ()
        if self.replace_keys:
            lost = tuple(self.merging.lost(present, wanted.profile))
        # A key that stays keeps what either copy has, so that an old copy removes no revocation.
        profile = self.merging.combine([key for key in present if key not in lost], wanted.profile)
        action = BulkAction.REPLACED if lost else BulkAction.EXTENDED
        if profile == tuple(present):
            action = BulkAction.UNCHANGED
        return before, Planned(before.label, action, profile, lost)


class _Bulk:
    """The two steps of one account; called by several threads."""

    def __init__(
        self, client: Client, keys: Sequence[PrivateKey], progress: BulkProgress, plans: _Plans
    ) -> None:
        self.report = BulkReport(0, 0, [])
        self._client = client
        self._keys = keys
        self._publics = frozenset(PublicKey(key.algorithm, key.public) for key in keys)
        self._progress = progress
        self._plans = plans
        self._patience = plans.patience
        self._lock = threading.Lock()

    def submit(self, wanted: Wanted) -> Submission | None:
        """Send one account. Returns None if there is nothing to confirm."""
        try:
            submission = self._submitted(wanted)
        except (RefusedError, MalformedError) as error:
            self._refuse(wanted.label, str(error))
            submission = None
        self._progress.submitted()
        # The profile was sent. The profiles of thousands of accounts would fill the memory.
        return None if submission is None else replace(submission, profile=b"")

    def confirm(self, submission: Submission) -> None:
        """Wait until a submission is proven in the map."""
        try:
            self._client.confirm(submission, timeout=self._patience)
        except RefusedError as error:
            self._refuse(submission.label, str(error))
        else:
            with self._lock:
                self.report.published += 1
        self._progress.confirmed()

    def _submitted(self, wanted: Wanted) -> Submission | None:
        before, planned = self._plans.plan(wanted)
        if planned.action is BulkAction.UNCHANGED:
            with self._lock:
                self.report.unchanged += 1
            return None
        submission = self._signed(before, planned)
        self._client.submit(submission, timeout=self._patience)
        with self._lock:
            self.report.extended += planned.action is BulkAction.EXTENDED
            self.report.replaced += planned.action is BulkAction.REPLACED
        return submission

    def _signed(self, before: Lookup, planned: Planned) -> Submission:
        """Sign the change, unless it would vouch for unknown keys of an existing account."""
        if before.entry is None or self._publics.issuperset(before.entry.authorized_keys):
            return build_submission(before, planned.profile, self._keys, os.urandom(OPENING_LENGTH))
        return self._client.propose(before, planned.profile, self._keys, timeout=self._patience).submission

    def _refuse(self, label: str, problem: str) -> None:
        with self._lock:
            self.report.refused.append((label, problem))


def _has_profile(before: Lookup, wanted: Wanted) -> bool:
    """Return whether the proven version commits to the wanted profile, without fetching the profile."""
    opening, entry = before.proof.answer.opening, before.entry
    if opening is None or entry is None:
        return False
    profile = encode_profile(wanted.profile)
    return hashes.opens(entry.commitment, opening, before.label, entry.version, profile)


def _mapped(
    pool: ThreadPoolExecutor, work: Callable[[_T], _R], things: Iterable[_T], ahead: int
) -> Iterator[_R]:
    """``pool.map`` that holds at most ``ahead`` of ``things`` at a time, because they may be large."""
    running: set[Future[_R]] = set()
    for thing in things:
        running.add(pool.submit(work, thing))
        if len(running) >= ahead:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    done, _ = wait(running)
    yield from (future.result() for future in done)
