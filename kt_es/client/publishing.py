"""The steps of a change: build it, send it, wait until it is proven, remember what its owner signed last."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kt_es.api.codec import Json, decode_member
from kt_es.api.models import MAX_WAIT, ErasureBody, ErasureRequest, MutationRequest, ReceiptBody, VerdictBody
from kt_es.api.operations import ERASURES, MUTATIONS
from kt_es.client.changes import (
    OWN,
    Mine,
    OwnVersion,
    Proposal,
    Submission,
    build_submission,
    proposal,
    refuse_unknown,
    unknown_keys,
    verify_own,
)
from kt_es.client.history import Version
from kt_es.client.session import Session
from kt_es.client.state import decoded
from kt_es.client.statuses import SubmissionStatus, submission_status
from kt_es.client.transport import Transport
from kt_es.client.trust import Lookup
from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import MalformedError, RefusedError, UnavailableError
from kt_es.formats.entries import OPENING_LENGTH, ProfileKey, PublicKey
from kt_es.formats.erasures import Erasure
from kt_es.process.outage import Backoff


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to a submission. ``verdict`` and ``epoch`` are None while nothing is decided.

    ``registration`` says how the server checked that a new label may be registered; None if it did not.
    """

    mutation: str
    verdict: str | None
    epoch: int | None
    registration: str | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """An accepted change. ``lookup`` proves it, or a later version that has replaced it."""

    submission: Submission
    lookup: Lookup

    @property
    def stands(self) -> bool:
        """Whether the map holds the change itself, and not a later version."""
        proven = self.lookup.mutation
        return proven is not None and proven.entry_hash == self.submission.mutation.entry_hash


class Publisher:
    """The steps of one change. Safe for threads: everything is kept in the store of the session."""

    def __init__(self, session: Session, registration: str | None = None) -> None:
        self._session = session
        self._registration = registration
        self._store = session.directory.store

    def propose(
        self,
        before: Lookup,
        profile: Sequence[ProfileKey],
        signing_keys: Sequence[PrivateKey],
        new_authorized_keys: Sequence[PublicKey] | None,
        deadline: float,
        *,
        mine: Mine | None = None,
        without: Sequence[PublicKey] = (),
    ) -> Proposal:
        """Build and sign a change of what ``before`` proves; see ``Client.propose``."""
        held = frozenset(PublicKey(key.algorithm, key.public) for key in signing_keys)
        mine = Mine(held) if mine is None else Mine(mine.held | held, mine.declared)
        # Without a key of the present version nothing can be signed. ``build_submission`` reports that.
        if before.entry is not None and not held.isdisjoint(before.entry.authorized_keys):
            # The caller vouches for the keys that it names for the new version.
            kept = () if new_authorized_keys is not None and not without else before.entry.authorized_keys
            kept = tuple(key for key in kept if key not in without)
            self._verify_past(before, kept, mine, deadline)
            if without:
                new_authorized_keys = (*kept, *(new_authorized_keys or ()))
        opening = os.urandom(OPENING_LENGTH)
        submission = build_submission(before, profile, signing_keys, opening, new_authorized_keys)
        return proposal(before, submission, profile)

    def _verify_past(self, before: Lookup, kept: Sequence[PublicKey], mine: Mine, deadline: float) -> None:
        """Refuse to continue from ``before`` if the owner's last version is gone, or if keys are unknown."""
        own = self._own(before.label)
        if own is not None and before.mutation is not None and own == OwnVersion.of(before.mutation):
            return
        versions = self._session.history(before.label, deadline).versions
        with self._session.directory.saving():
            verify_own(own, versions)
        refuse_unknown(before.label, unknown_keys(kept, versions, mine))

    def _own(self, label: str) -> OwnVersion | None:
        data = self._store.recall(OWN, label.encode())
        return decoded(data, OwnVersion.decode, f"what was signed last for {label}")

    def publish(
        self,
        label: str,
        profile: Sequence[ProfileKey],
        signing_keys: Sequence[PrivateKey],
        new_authorized_keys: Sequence[PublicKey] | None,
        deadline: float,
        *,
        wait: float,
        retries: int,
    ) -> Published:
        """Look up, propose and send, again with the new state if another change came first."""
        while True:
            before = self._session.lookup(label, None, False, deadline)
            proposed = self.propose(before, profile, signing_keys, new_authorized_keys, deadline)
            try:
                return self.send(proposed.submission, wait, deadline)
            except RefusedError as error:
                if error.reason not in ("stale", "conflict") or retries <= 0:
                    raise
            retries -= 1

    def send(self, submission: Submission, wait: float, deadline: float) -> Published:
        """Submit and confirm ``submission``, and remember it as what the owner signed last."""
        try:
            self.submit(submission, wait, deadline)
        except RefusedError:
            # The answer to an earlier attempt may have been lost. Then this refusal is about the repetition.
            lookup = self._session.lookup(submission.label, None, False, deadline)
            if not self._stands(submission, lookup, deadline):
                raise
        else:
            lookup = self.confirm(submission, deadline)
        self._store.remember(OWN, submission.label.encode(), OwnVersion.of(submission.mutation).encode())
        return Published(submission, lookup)

    def submit(self, submission: Submission, wait: float, deadline: float) -> Receipt:
        """Send ``submission``. The server may take ``wait`` seconds to answer with the verdict."""
        request = MutationRequest(
            submission.label,
            submission.mutation.encode(),
            submission.opening,
            submission.profile,
            bounded_wait(wait, deadline),
            self.registration_of(submission),
        )
        answer = self._session.transport.post(MUTATIONS.path, request, deadline)
        return receipt_for(submission, answer.body)

    def registration_of(self, submission: Submission) -> str | None:
        """Return the registration proof that goes with ``submission``: first versions alone have one."""
        # Nobody but the gate in front of new labels gets to see it.
        is_first = submission.mutation.entry.version == 1
        return (submission.registration or self._registration) if is_first else None

    @property
    def transport(self) -> Transport:
        """The server that gets the changes."""
        return self._session.transport

    def status(self, submission: Submission, deadline: float) -> SubmissionStatus:
        """Ask what became of ``submission``."""

        def stands(lookup: Lookup) -> bool:
            return self._stands(submission, lookup, deadline)

        return submission_status(self._session, submission, stands, deadline)

    def submit_erasure(self, erasure: Erasure, deadline: float) -> None:
        """Send the erasure of one entry's profile. It is safe to send it again."""
        answer = self._session.transport.post(ERASURES.path, ErasureRequest(erasure.encode()), deadline)
        if decode_member(ErasureBody, answer.body, "entry") != erasure.entry_hash.hex():
            raise MalformedError("receipt", "is for another erasure")

    def confirm(self, submission: Submission, deadline: float) -> Lookup:
        """Wait until ``submission``, or a successor of it, is proven in the map."""
        version = submission.mutation.entry.version

        def proven() -> Lookup | None:
            lookup = self._session.lookup(submission.label, None, False, deadline)
            if self._stands(submission, lookup, deadline):
                return lookup
            if lookup.entry is not None and lookup.entry.version >= version:
                raise RefusedError("conflict", f"another change took version {version}")
            return None

        return _wait_for(proven, "change", deadline)

    def confirm_erasure(self, label: str, version: Version, deadline: float) -> Lookup:
        """Wait until a lookup of the version's epoch proves that its profile was erased."""

        def proven() -> Lookup | None:
            lookup = self._session.lookup(label, version.epoch, False, deadline)
            if not lookup.erased or lookup.mutation is None:
                return None
            if lookup.mutation.entry_hash != version.entry_hash:
                raise RefusedError("conflict", f"version {version.number} is another entry than before")
            return lookup

        return _wait_for(proven, "erasure", deadline)

    def _stands(self, submission: Submission, lookup: Lookup, deadline: float) -> bool:
        """Return whether the submitted entry is the one that ``lookup`` proves, or precedes it."""
        wanted, proven = submission.mutation, lookup.mutation
        if proven is None or proven.entry.version < wanted.entry.version:
            return False
        if wanted.entry_hash in (proven.entry_hash, proven.entry.previous):
            return True
        if proven.entry.version <= wanted.entry.version + 1:
            return False
        versions = self._session.history(submission.label, deadline).versions
        return versions[wanted.entry.version - 1].entry_hash == wanted.entry_hash


def _wait_for(proven: Callable[[], Lookup | None], what: str, deadline: float) -> Lookup:
    """Call ``proven`` until it returns a lookup; raises ``UnavailableError`` at the deadline."""
    backoff = Backoff(0.05, 1.0)
    while (lookup := proven()) is None:
        pause = backoff.pause()
        if time.monotonic() + pause >= deadline:
            raise UnavailableError(f"the {what} is not in a map head yet; ask again, it is not lost")
        time.sleep(pause)
    return lookup


def bounded_wait(wait: float, deadline: float) -> float:
    """Return the seconds that a server may wait for a verdict: the answer must arrive before ``deadline``."""
    left = max(deadline - time.monotonic(), 0.0)
    return max(0.0, min(wait, float(MAX_WAIT), left / 2))


def receipt_for(submission: Submission, body: Mapping[str, Json]) -> Receipt:
    """Return the receipt or verdict in ``body``. Raises ``MalformedError`` if it is another one's."""
    receipt = read_receipt(body)
    if receipt.mutation != submission.mutation.entry_hash.hex():
        raise MalformedError("receipt", "is for another mutation")
    return receipt


def read_receipt(body: Mapping[str, Json]) -> Receipt:
    # Decode only the members that the client uses: the mutation was accepted, even if others are wrong.
    mutation = decode_member(ReceiptBody, body, "mutation")
    verdict, epoch, registration = (
        None if body.get(name) is None else decode_member(VerdictBody, body, name)
        for name in ("verdict", "epoch", "registration")
    )
    return Receipt(mutation, verdict, epoch, registration)
