"""Publishing many accounts: prepare and submit in threads, then confirm each one in the map.

Running it again does what is missing: an account whose present version already has the wanted keys
is left alone, so an import that was interrupted is resumed by repeating it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

from kt_es.client.client import Client
from kt_es.client.submissions import Submission, build_submission
from kt_es.client.trust import Lookup
from kt_es.crypto import commitments
from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import MalformedError, RefusedError
from kt_es.formats.keys import PublicKey
from kt_es.formats.profiles import OPENING_LENGTH, ProfileKey, encode_profile

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One account as it is to stand in the directory."""

    label: str
    profile: tuple[ProfileKey, ...]


@dataclass(slots=True)
class BulkReport:
    """What became of the accounts. ``refused`` are pairs of a label and the reason.

    ``extended`` and ``replaced`` are those of the published accounts that stood before: the former kept all
    their keys, the latter lost some.
    """

    published: int
    unchanged: int
    refused: list[tuple[str, str]]
    extended: int = 0
    replaced: int = 0


@dataclass(frozen=True, slots=True)
class Merging:
    """How the keys that an account has and those of a file go together.

    ``combine`` makes the profile of both, ``lost`` says which keys of the first are not in the second.
    """

    combine: Callable[[Sequence[ProfileKey], Sequence[ProfileKey]], tuple[ProfileKey, ...]]
    lost: Callable[[Sequence[ProfileKey], Sequence[ProfileKey]], Sequence[ProfileKey]]


class Action(Enum):
    """What publishing does to an account."""

    NEW = "new"
    UNCHANGED = "unchanged"
    EXTENDED = "extended"
    REPLACED = "replaced"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Planned:
    """An account as it would be published: ``profile`` is all of it, ``lost`` what it has and would lose."""

    label: str
    action: Action
    profile: tuple[ProfileKey, ...]
    lost: tuple[ProfileKey, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """Told, from several threads, of each account submitted (or left alone) and each one confirmed."""

    submitted: Callable[[], None]
    confirmed: Callable[[], None]


def publish_all(
    client: Client,
    accounts: Iterable[Wanted],
    keys: Sequence[PrivateKey],
    progress: Progress,
    *,
    merging: Merging,
    replace_keys: bool = False,
    jobs: int = 8,
    patience: float = 600.0,
) -> BulkReport:
    """Publish ``accounts`` signed by ``keys``; each is confirmed by a verified lookup before it counts.

    An account that stands already keeps its keys beside the wanted ones, unless ``replace_keys``.

    ``patience`` bounds, in seconds, how long one account waits for a server that is away: then
    ``UnavailableError`` ends everything, and calling again resumes. Refusals are collected, among them the
    accounts whose authorized keys are neither in ``keys`` nor in a version that one of ``keys`` signed.
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
    """What ``publish_all`` would do now, in the order of ``accounts``; nothing is signed or sent."""
    plans = _Plans(client, merging, replace_keys, patience)
    with ThreadPoolExecutor(jobs, thread_name_prefix="plan") as pool:
        return list(pool.map(plans.planned, accounts))


@dataclass(frozen=True, slots=True)
class _Plans:
    """What is to become of an account, by what is proven to stand; called by several threads."""

    client: Client
    merging: Merging
    replace_keys: bool
    patience: float

    def planned(self, wanted: Wanted) -> Planned:
        try:
            return self.plan(wanted)[1]
        except MalformedError as error:
            return Planned(wanted.label, Action.REFUSED, wanted.profile, problem=str(error))

    def plan(self, wanted: Wanted) -> tuple[Lookup, Planned]:
        before = self.client.lookup(wanted.label, profile=False, timeout=self.patience)
        if before.entry is None:
            return before, Planned(before.label, Action.NEW, wanted.profile)
        if _has_profile(before, wanted):
            return before, Planned(before.label, Action.UNCHANGED, wanted.profile)
        before = self.client.lookup(wanted.label, timeout=self.patience)
        # An account whose profile was erased has no keys that could be kept.
        present = before.profile or ()
        if self.replace_keys:
            lost = tuple(self.merging.lost(present, wanted.profile))
            # A key that stays keeps what either copy has: an old copy takes back no revocation.
            profile = self.merging.combine([key for key in present if key not in lost], wanted.profile)
            action = Action.REPLACED if lost else Action.EXTENDED
            if profile == tuple(present):
                action = Action.UNCHANGED
            return before, Planned(before.label, action, profile, lost)
        profile = self.merging.combine(present, wanted.profile)
        action = Action.UNCHANGED if profile == tuple(present) else Action.EXTENDED
        return before, Planned(before.label, action, profile)


class _Bulk:
    """The two steps of one account; called by several threads."""

    def __init__(self, client: Client, keys: Sequence[PrivateKey], progress: Progress, plans: _Plans) -> None:
        self.report = BulkReport(0, 0, [])
        self._client = client
        self._keys = keys
        self._publics = frozenset(PublicKey(key.algorithm, key.public) for key in keys)
        self._progress = progress
        self._plans = plans
        self._patience = plans.patience
        self._lock = threading.Lock()

    def submit(self, wanted: Wanted) -> Submission | None:
        """Send one account; None if nothing of it is left to be confirmed."""
        try:
            submission = self._submitted(wanted)
        except (RefusedError, MalformedError) as error:
            self._refuse(wanted.label, str(error))
            submission = None
        self._progress.submitted()
        # The profile has been sent: kept for thousands of accounts it would be the memory of all.
        return None if submission is None else replace(submission, profile=b"")

    def confirm(self, submission: Submission) -> None:
        """Wait for the proof that a submission stands."""
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
        if planned.action is Action.UNCHANGED:
            with self._lock:
                self.report.unchanged += 1
            return None
        submission = self._signed(before, planned)
        self._client.submit(submission, timeout=self._patience)
        with self._lock:
            self.report.extended += planned.action is Action.EXTENDED
            self.report.replaced += planned.action is Action.REPLACED
        return submission

    def _signed(self, before: Lookup, planned: Planned) -> Submission:
        """The change, unless it would vouch for keys of an existing account that nobody here knows."""
        if before.entry is None or self._publics.issuperset(before.entry.authorized_keys):
            return build_submission(before, planned.profile, self._keys, os.urandom(OPENING_LENGTH))
        return self._client.propose(before, planned.profile, self._keys, timeout=self._patience).submission

    def _refuse(self, label: str, problem: str) -> None:
        with self._lock:
            self.report.refused.append((label, problem))


def _has_profile(before: Lookup, wanted: Wanted) -> bool:
    """Whether the proven version already commits to the wanted profile, which need not be fetched."""
    opening, entry = before.proof.answer.opening, before.entry
    if opening is None or entry is None:
        return False
    profile = encode_profile(wanted.profile)
    return commitments.opens(entry.commitment, opening, before.label, entry.version, profile)


def _mapped(
    pool: ThreadPoolExecutor, work: Callable[[_T], _R], things: Iterable[_T], ahead: int
) -> Iterator[_R]:
    """``pool.map`` that takes from ``things`` only ``ahead`` of what is done: they may be large."""
    running: set[Future[_R]] = set()
    for thing in things:
        running.add(pool.submit(work, thing))
        if len(running) >= ahead:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    done, _ = wait(running)
    yield from (future.result() for future in done)
