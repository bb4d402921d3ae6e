"""Publishing many accounts: prepare and submit in threads, then confirm each one in the map.

Running it again does what is missing: an account whose present version already has the wanted profile
is left alone, so an import that was interrupted is resumed by repeating it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
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
    """What became of the accounts. ``refused`` are pairs of a label and the reason."""

    published: int
    unchanged: int
    refused: list[tuple[str, str]]


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
    jobs: int = 8,
    patience: float = 600.0,
) -> BulkReport:
    """Publish ``accounts`` signed by ``keys``; each is confirmed by a verified lookup before it counts.

    ``patience`` bounds, in seconds, how long one account waits for a server that is away: then
    ``UnavailableError`` ends everything, and calling again resumes. Refusals are collected, among them the
    accounts whose authorized keys are neither in ``keys`` nor in a version that one of ``keys`` signed.
    """
    work = _Bulk(client, keys, progress, patience)
    with ThreadPoolExecutor(jobs, thread_name_prefix="publish") as pool:
        submitted = list(_mapped(pool, work.submit, accounts, 4 * jobs))
        pending = [submission for submission in submitted if submission is not None]
        for _ in _mapped(pool, work.confirm, pending, 4 * jobs):
            pass
    return work.report


class _Bulk:
    """The two steps of one account; called by several threads."""

    def __init__(
        self, client: Client, keys: Sequence[PrivateKey], progress: Progress, patience: float
    ) -> None:
        self.report = BulkReport(0, 0, [])
        self._client = client
        self._keys = keys
        self._publics = frozenset(PublicKey(key.algorithm, key.public) for key in keys)
        self._progress = progress
        self._patience = patience
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
        before = self._client.lookup(wanted.label, profile=False, timeout=self._patience)
        if _has_profile(before, wanted):
            with self._lock:
                self.report.unchanged += 1
            return None
        submission = self._signed(before, wanted)
        self._client.submit(submission, timeout=self._patience)
        return submission

    def _signed(self, before: Lookup, wanted: Wanted) -> Submission:
        """The change, unless it would vouch for keys of an existing account that nobody here knows."""
        if before.entry is None or self._publics.issuperset(before.entry.authorized_keys):
            return build_submission(before, wanted.profile, self._keys, os.urandom(OPENING_LENGTH))
        return self._client.propose(before, wanted.profile, self._keys, timeout=self._patience).submission

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
