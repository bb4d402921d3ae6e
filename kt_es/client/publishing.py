"""Sends a change, waits until it is proven, and remembers what its owner signed last."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from kt_es.api.codec import decode_member
from kt_es.api.models import MAX_WAIT, ErasureBody, ErasureRequest, MutationRequest
from kt_es.api.operations import ERASURES, MUTATIONS
from kt_es.client import wire
from kt_es.client.histories import read_history
from kt_es.client.history import Version
from kt_es.client.session import Session
from kt_es.client.submissions import Submission
from kt_es.client.trust import Lookup
from kt_es.client.vouching import OWN, Mine, Own, refuse_unknown, unknown_keys, verify_own
from kt_es.errors import ConfigError, MalformedError, RefusedError, UnavailableError
from kt_es.formats.erasures import Erasure
from kt_es.formats.keys import PublicKey
from kt_es.process.backoff import Backoff


@dataclass(frozen=True, slots=True)
class Published:
    """A change that the directory took: ``lookup`` proves it, or a later version that has replaced it."""

    submission: Submission
    lookup: Lookup

    @property
    def stands(self) -> bool:
        """Whether the change itself is what stands in the map, and no later version."""
        proven = self.lookup.mutation
        return proven is not None and proven.entry_hash == self.submission.mutation.entry_hash


class Publisher:
    """The steps of one change. Safe for threads: all it keeps is in the session's state."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def verify_past(self, before: Lookup, kept: Sequence[PublicKey], mine: Mine, deadline: float) -> None:
        """Refuse to go on from ``before`` if it is not what the owner signed last, or has unknown keys."""
        own = self._own(before.label)
        if own is not None and before.mutation is not None and own == Own.of(before.mutation):
            return
        versions = read_history(self._session, before.label, deadline).versions
        with self._session.saving():
            verify_own(own, versions)
        refuse_unknown(before.label, unknown_keys(kept, versions, mine))

    def _own(self, label: str) -> Own | None:
        data = self._session.state.recall(OWN, label.encode())
        try:
            return None if data is None else Own.decode(data)
        except MalformedError as error:
            raise ConfigError(f"what was signed last for {label} is damaged: {error}") from None

    def publish(self, submission: Submission, wait: float, deadline: float) -> Lookup:
        lookup = self._submitted(submission, wait, deadline)
        self._session.state.remember(OWN, submission.label.encode(), Own.of(submission.mutation).encode())
        return lookup

    def _submitted(self, submission: Submission, wait: float, deadline: float) -> Lookup:
        try:
            self.submit(submission, wait, deadline)
        except RefusedError:
            # An answer may have been lost: what is refused now can be what was accepted before.
            lookup = self._session.lookup(submission.label, None, False, deadline)
            if self._stands(submission, lookup, deadline):
                return lookup
            raise
        return self.confirm(submission, deadline)

    def submit(self, submission: Submission, wait: float, deadline: float) -> wire.Receipt:
        left = max(deadline - time.monotonic(), 0.0)
        request = MutationRequest(
            submission.label,
            submission.mutation.encode(),
            submission.opening,
            submission.profile,
            max(0.0, min(wait, float(MAX_WAIT), left / 2)),
        )
        answer = self._session.transport.post(MUTATIONS.path, request, deadline)
        receipt = wire.read_receipt(answer.body)
        if receipt.mutation != submission.mutation.entry_hash.hex():
            raise MalformedError("receipt", "is for another mutation")
        return receipt

    def submit_erasure(self, erasure: Erasure, deadline: float) -> None:
        """Send the erasure of one entry's profile; sending it again is safe."""
        answer = self._session.transport.post(ERASURES.path, ErasureRequest(erasure.encode()), deadline)
        if decode_member(ErasureBody, answer.body, "entry") != erasure.entry_hash.hex():
            raise MalformedError("receipt", "is for another erasure")

    def confirm_erasure(self, label: str, version: Version, deadline: float) -> Lookup:
        """Wait until a lookup of the version's epoch proves that its profile was erased."""
        backoff = Backoff(0.05, 1.0)
        while True:
            lookup = self._session.lookup(label, version.epoch, False, deadline)
            if lookup.erased and lookup.mutation is not None:
                if lookup.mutation.entry_hash != version.entry_hash:
                    raise RefusedError("conflict", f"version {version.number} is another entry than before")
                return lookup
            pause = backoff.pause()
            if time.monotonic() + pause >= deadline:
                raise UnavailableError("the erasure is not in a map head yet; ask again, it is not lost")
            time.sleep(pause)

    def confirm(self, submission: Submission, deadline: float) -> Lookup:
        backoff = Backoff(0.05, 1.0)
        while True:
            lookup = self._session.lookup(submission.label, None, False, deadline)
            if self._stands(submission, lookup, deadline):
                return lookup
            version = submission.mutation.entry.version
            if lookup.entry is not None and lookup.entry.version >= version:
                raise RefusedError("conflict", f"another change took version {version}")
            pause = backoff.pause()
            if time.monotonic() + pause >= deadline:
                raise UnavailableError("the change is not in a map head yet; ask again, it is not lost")
            time.sleep(pause)

    def _stands(self, submission: Submission, lookup: Lookup, deadline: float) -> bool:
        """Whether the submitted entry is what ``lookup`` proves, or among what precedes it."""
        wanted, proven = submission.mutation, lookup.mutation
        if proven is None or proven.entry.version < wanted.entry.version:
            return False
        if wanted.entry_hash in (proven.entry_hash, proven.entry.previous):
            return True
        if proven.entry.version <= wanted.entry.version + 1:
            return False
        versions = read_history(self._session, submission.label, deadline).versions
        return versions[wanted.entry.version - 1].entry_hash == wanted.entry_hash
