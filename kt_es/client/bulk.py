"""Publishes many accounts: signs and submits them in groups and threads, then confirms each in the map.

An account whose present version already has the wanted keys is left unchanged. So an interrupted import is
resumed by repeating it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TypeVar

from kt_es.api.batches import MAX_SUBMISSIONS
from kt_es.client.changes import Submission, build_submission
from kt_es.client.client import Client
from kt_es.client.planning import BulkAction, Merging, Planned, Plans, Wanted, groups_of
from kt_es.client.trust import Lookup
from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import MalformedError, RefusedError, UnavailableError
from kt_es.formats.entries import OPENING_LENGTH, PublicKey
from kt_es.process.outage import Backoff

_T = TypeVar("_T")
_R = TypeVar("_R")


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
        jobs: Number of threads, each of which has a group of up to 256 accounts at a time.
        patience: Seconds that one request waits for an unavailable server. After that time
            ``UnavailableError`` ends the call. Call again to resume.
    """
    work = _Bulk(client, keys, progress, Plans(client, merging, replace_keys, patience))
    with ThreadPoolExecutor(jobs, thread_name_prefix="publish") as pool:
        submitted = _mapped(pool, work.submit, groups_of(accounts), 2 * jobs)
        pending = [submission for group in submitted for submission in group]
        parts = [pending[at : at + MAX_SUBMISSIONS] for at in range(0, len(pending), MAX_SUBMISSIONS)]
        for _ in _mapped(pool, work.confirm, parts, 2 * jobs):
            pass
    return work.report


class _Bulk:
    """The two steps of a group of accounts; called by several threads."""

    def __init__(
        self, client: Client, keys: Sequence[PrivateKey], progress: BulkProgress, plans: Plans
    ) -> None:
        self.report = BulkReport(0, 0, [])
        self._client = client
        self._keys = keys
        self._publics = frozenset(PublicKey(key.algorithm, key.public) for key in keys)
        self._progress = progress
        self._plans = plans
        self._patience = plans.patience
        self._lock = threading.Lock()

    def submit(self, group: Sequence[Wanted]) -> list[Submission]:
        """Send the accounts of a group. Returns those that are to be confirmed.

        Raises ``UnavailableError`` if it is unknown what became of one, after all others were counted.
        """
        signed: list[tuple[Planned, Submission]] = []
        for before, planned in self._plans.plan(group):
            submission = self._signed(before, planned)
            if submission is None:
                self._progress.submitted()
            else:
                signed.append((planned, submission))
        outcomes = self._client.submit_many([one for _, one in signed], timeout=self._patience)
        sent: list[Submission] = []
        unknown: UnavailableError | None = None
        for (planned, submission), outcome in zip(signed, outcomes, strict=True):
            if isinstance(outcome, UnavailableError):
                unknown = outcome
                continue
            if isinstance(outcome, RefusedError):
                self._refuse(submission.label, str(outcome))
            else:
                with self._lock:
                    self.report.extended += planned.action is BulkAction.EXTENDED
                    self.report.replaced += planned.action is BulkAction.REPLACED
                # The profile was sent. The profiles of thousands of accounts would fill the memory.
                sent.append(replace(submission, profile=b""))
            self._progress.submitted()
        if unknown is not None:
            raise unknown
        return sent

    def confirm(self, group: Sequence[Submission]) -> None:
        """Wait until every submission of a group is proven in the map."""
        deadline = time.monotonic() + self._patience
        backoff = Backoff(0.05, 1.0)
        missing = list(group)
        while missing:
            found = self._plans.lookups([submission.label for submission in missing])
            pairs = list(zip(missing, found, strict=True))
            missing = [submission for submission, lookup in pairs if not self._is_over(submission, lookup)]
            pause = backoff.pause()
            if missing and time.monotonic() + pause >= deadline:
                raise UnavailableError("a change is not in a map head yet; ask again, it is not lost")
            if missing:
                time.sleep(pause)

    def _is_over(self, submission: Submission, lookup: Lookup | MalformedError) -> bool:
        """Count a submission whose version, or a later one, is in the map; return whether one is."""
        if isinstance(lookup, MalformedError):
            raise lookup
        wanted, proven = submission.mutation, lookup.mutation
        if proven is None or proven.entry.version < wanted.entry.version:
            return False
        try:
            if wanted.entry_hash not in (proven.entry_hash, proven.entry.previous):
                # The history of the account tells whether the change or another one took its version.
                self._client.confirm(submission, timeout=self._patience)
        except RefusedError as error:
            self._refuse(submission.label, str(error))
        else:
            with self._lock:
                self.report.published += 1
        self._progress.confirmed()
        return True

    def _signed(self, before: Lookup | None, planned: Planned) -> Submission | None:
        """Sign a planned change; None if there is nothing to send."""
        if before is None:
            self._refuse(planned.label, planned.problem)
            return None
        if planned.action is BulkAction.UNCHANGED:
            with self._lock:
                self.report.unchanged += 1
            return None
        try:
            return self._submission(before, planned)
        except (RefusedError, MalformedError) as error:
            self._refuse(planned.label, str(error))
            return None

    def _submission(self, before: Lookup, planned: Planned) -> Submission:
        """Sign the change, unless it would vouch for unknown keys of an existing account."""
        if before.entry is None or self._publics.issuperset(before.entry.authorized_keys):
            return build_submission(before, planned.profile, self._keys, os.urandom(OPENING_LENGTH))
        return self._client.propose(before, planned.profile, self._keys, timeout=self._patience).submission

    def _refuse(self, label: str, problem: str) -> None:
        with self._lock:
            self.report.refused.append((label, problem))


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
