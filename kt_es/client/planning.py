"""What publishing many accounts would do to each: new, unchanged, extended, replaced, or refused.

The accounts of a group are looked up together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import Final

from kt_es.api.batches import MAX_SUBMISSIONS
from kt_es.client.client import Client
from kt_es.client.submitting import NOT_THERE
from kt_es.client.trust import Lookup
from kt_es.crypto import hashes
from kt_es.errors import MalformedError, RefusedError
from kt_es.formats.entries import ProfileKey, encode_profile

GROUP_BYTES: Final = 512 * 1024
"""Bytes of the keys of a group, and one account more. Several groups are in memory at a time."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One account as the directory should have it."""

    label: str
    profile: tuple[ProfileKey, ...]


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
    plans = Plans(client, merging, replace_keys, patience)
    with ThreadPoolExecutor(jobs, thread_name_prefix="plan") as pool:
        return [planned for group in pool.map(plans.plan, groups_of(accounts)) for _, planned in group]


def groups_of(accounts: Iterable[Wanted]) -> Iterator[list[Wanted]]:
    """Divide ``accounts`` into groups that are submitted together."""
    group: list[Wanted] = []
    size = 0
    for wanted in accounts:
        if group and (len(group) == MAX_SUBMISSIONS or size > GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(wanted)
        size += sum(len(key.data) for key in wanted.profile)
    if group:
        yield group


@dataclass(frozen=True, slots=True)
class Plans:
    """Decides what to publish for accounts, from their proven versions. Called by several threads."""

    client: Client
    merging: Merging
    replace_keys: bool
    patience: float

    def plan(self, group: Sequence[Wanted]) -> list[tuple[Lookup | None, Planned]]:
        """Return the present version of each account of ``group``, None if it is refused, and the plan."""
        present = self.lookups([wanted.label for wanted in group])
        changing = [
            wanted.label
            for wanted, before in zip(group, present, strict=True)
            if isinstance(before, Lookup) and before.entry is not None and not _has_profile(before, wanted)
        ]
        whole = dict(zip(changing, self.lookups(changing, profile=True), strict=True))
        return [
            self._planned(wanted, before, whole.get(wanted.label))
            for wanted, before in zip(group, present, strict=True)
        ]

    def lookups(self, labels: Sequence[str], *, profile: bool = False) -> list[Lookup | MalformedError]:
        """Look ``labels`` up, in one request if the server takes it. An error is about its label alone."""
        if len(labels) > 1:
            try:
                return list(self.client.lookup_many(labels, profile=profile, timeout=self.patience))
            except RefusedError as error:
                if error.reason not in NOT_THERE:
                    raise
            except MalformedError:
                # One by one it shows which label cannot be looked up.
                pass
        return [self._lookup(label, profile=profile) for label in labels]

    def _lookup(self, label: str, *, profile: bool) -> Lookup | MalformedError:
        try:
            return self.client.lookup(label, profile=profile, timeout=self.patience)
        except MalformedError as error:
            return error

    def _planned(
        self, wanted: Wanted, before: Lookup | MalformedError, whole: Lookup | MalformedError | None
    ) -> tuple[Lookup | None, Planned]:
        """``whole`` is the lookup with the profile, where the account has another profile than it should."""
        try:
            return self._plan(wanted, _found(before), None if whole is None else _found(whole))
        except MalformedError as error:
            return None, Planned(wanted.label, BulkAction.REFUSED, wanted.profile, problem=str(error))

    def _plan(self, wanted: Wanted, before: Lookup, whole: Lookup | None) -> tuple[Lookup, Planned]:
        if whole is None:
            action = BulkAction.NEW if before.entry is None else BulkAction.UNCHANGED
            return before, Planned(before.label, action, wanted.profile)
        # An account whose profile was erased has no keys that could be kept.
        present = whole.profile or ()
        lost: tuple[ProfileKey, ...] = ()
        if self.replace_keys:
            lost = tuple(self.merging.lost(present, wanted.profile))
        # A key that stays keeps what either copy has, so that an old copy removes no revocation.
        profile = self.merging.combine([key for key in present if key not in lost], wanted.profile)
        action = BulkAction.REPLACED if lost else BulkAction.EXTENDED
        if profile == tuple(present):
            action = BulkAction.UNCHANGED
        return whole, Planned(whole.label, action, profile, lost)


def _has_profile(before: Lookup, wanted: Wanted) -> bool:
    """Return whether the proven version commits to the wanted profile, without fetching the profile."""
    opening, entry = before.proof.answer.opening, before.entry
    if opening is None or entry is None:
        return False
    profile = encode_profile(wanted.profile)
    return hashes.opens(entry.commitment, opening, before.label, entry.version, profile)


def _found(lookup: Lookup | MalformedError) -> Lookup:
    if isinstance(lookup, MalformedError):
        raise lookup
    return lookup
