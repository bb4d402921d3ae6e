"""The client of one directory: fetches, lets ``trust`` judge, stores what it trusts, then answers.

The new checkpoint and what is remembered of the account are on disk before a result is returned. Where two
signed statements contradict each other, ``EquivocationError`` carries the evidence and where it is saved.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from types import TracebackType

import httpx

from kt_es.client import wire
from kt_es.client.heads import SLACK
from kt_es.client.history import History, epochs_to_look_up, verify_history
from kt_es.client.session import Head, Session
from kt_es.client.state import StateStore
from kt_es.client.submissions import Submission, build_submission
from kt_es.client.transport import Transport
from kt_es.client.trust import Lookup
from kt_es.client.trusted import Pinned, Trusted, verify_order
from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import MalformedError, RefusedError, UnavailableError
from kt_es.formats.keys import PublicKey
from kt_es.formats.labels import normalize_label
from kt_es.formats.notes import encode_base64
from kt_es.formats.profiles import OPENING_LENGTH, ProfileKey

MAX_HISTORY = 64 * 1024 * 1024
_MAX_WAIT = 60.0
_HISTORY_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Directory:
    """What a directory says of itself, its chain of configs verified.

    ``pinned`` is the key that it is known by, as ``pinned.vkey`` for people; ``on_first_use`` says that
    nobody but the server vouched for it.
    """

    name: str
    label_policy: str
    trusted: Trusted
    on_first_use: bool

    @property
    def origin(self) -> str:
        return self.trusted.origin

    @property
    def pinned(self) -> Pinned:
        return self.trusted.pinned


@dataclass(frozen=True, slots=True)
class Published:
    """A change that stands in the map: ``lookup`` proves it, or the successor that names it."""

    submission: Submission
    lookup: Lookup


def wall_clock() -> int:
    """Now, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Client:
    """One server of one directory. Threads may share it; so may processes share its state.

    ``pinned`` or ``origin`` is what the caller expects; without ``pinned`` the directory's first config
    is trusted on first use. ``timeout`` bounds each call as a whole, in seconds.
    """

    def __init__(
        self,
        base_url: str,
        state: StateStore,
        *,
        pinned: Pinned | None = None,
        origin: str | None = None,
        timeout: float = 30.0,
        slack: int = SLACK,
        verify: ssl.SSLContext | bool = True,
        headers: Mapping[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
        connections: int = 32,
        now: Callable[[], int] = wall_clock,
    ) -> None:
        self._transport = Transport(
            base_url,
            timeout=timeout,
            verify=verify,
            headers=headers,
            transport=transport,
            connections=connections,
        )
        self._session = Session(self._transport, state, pinned=pinned, origin=origin, slack=slack, now=now)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    @property
    def on_first_use(self) -> bool:
        """Whether this client trusted the directory because it was the first to answer."""
        return self._session.on_first_use

    def directory(self, *, timeout: float | None = None) -> Directory:
        """What the server says of the directory, verified; new configs are stored."""
        deadline = self._transport.deadline(timeout)
        trusted = self._session.trusted(deadline)
        told, trusted = self._session.refresh(trusted, deadline)
        policy = trusted.configs[0].config.label_policy
        return Directory(told.directory, policy, trusted, self.on_first_use)

    def trusted(self) -> Trusted:
        """The state of this client; the directory is asked for its configs before the first lookup."""
        return self._session.trusted(self._transport.deadline())

    def lookup(
        self, label: str, epoch: int | None = None, *, profile: bool = True, timeout: float | None = None
    ) -> Lookup:
        """What stands at ``label`` now, or stood there in ``epoch``, verified and the checkpoint stored.

        Proven absence is a result (``Lookup.absent``). Raises what ``trust.verify_lookup`` raises.
        """
        return self._session.lookup(label, epoch, profile, self._transport.deadline(timeout))

    def history(self, label: str, *, profiles: bool = False, timeout: float | None = None) -> History:
        """Every version of ``label``, verified: since when each holds and who signed it."""
        return self._history(label, profiles, self._transport.deadline(timeout))

    def head(self, epoch: int | None = None, *, fresh: bool = True, timeout: float | None = None) -> Head:
        """The latest head, or that of ``epoch``: verified and consistent with what is trusted.

        Without ``fresh`` the latest head may be old; it is for the caller to say how old.
        """
        return self._session.head(epoch, self._transport.deadline(timeout), fresh=fresh)

    def heads(self, last: int, *, timeout: float | None = None) -> list[Head]:
        """The ``last`` heads of the log, the oldest first, each verified and in order with the next one."""
        deadline = self._transport.deadline(timeout)
        newest = self._session.head(None, deadline)
        first = max(1, newest.head.epoch - last + 1)
        heads = [self._session.head(epoch, deadline) for epoch in range(first, newest.head.epoch)]
        with self._session.saving():
            for before, after in pairwise([*heads, newest]):
                verify_order(replace(after.proven.after, smh=before.smh), after.smh, after.head)
        return [*heads, newest]

    def consistency(
        self, log: str, first: int, second: int, *, timeout: float | None = None
    ) -> tuple[bytes, ...]:
        """The server's consistency proof for ``log`` (``heads`` or ``mutations``); nothing is verified."""
        return self._session.path(log, first, second, self._transport.deadline(timeout))

    def prepare(
        self,
        label: str,
        profile: Sequence[ProfileKey],
        signing_keys: Sequence[PrivateKey],
        new_authorized_keys: Sequence[PublicKey] | None = None,
        *,
        timeout: float | None = None,
    ) -> Submission:
        """A signed change of ``label`` as it stands now, see ``build_submission``; nothing is sent."""
        before = self.lookup(label, profile=False, timeout=timeout)
        opening = os.urandom(OPENING_LENGTH)
        return build_submission(before, profile, signing_keys, opening, new_authorized_keys)

    def submit(
        self, submission: Submission, *, wait: float = 0.0, timeout: float | None = None
    ) -> wire.Receipt:
        """Send ``submission``, the same bytes again while the server is unavailable.

        ``wait`` is how many seconds the server may take to answer with the verdict. Raises
        ``RefusedError`` with the verdict, and ``UnavailableError`` when the outcome is unknown: then the
        same submission may be sent again at any time.
        """
        return self._submit(submission, wait, self._transport.deadline(timeout))

    def confirm(self, submission: Submission, *, timeout: float | None = None) -> Lookup:
        """Wait until ``submission``, or a successor of it, is proven in the map.

        Raises ``RefusedError`` if another change took its place, ``UnavailableError`` if no head has it in
        time: the change is not lost, ask again.
        """
        return self._confirm(submission, self._transport.deadline(timeout))

    def publish(
        self,
        label: str,
        profile: Sequence[ProfileKey],
        signing_keys: Sequence[PrivateKey],
        new_authorized_keys: Sequence[PublicKey] | None = None,
        *,
        wait: float = 10.0,
        retries: int = 0,
        timeout: float | None = None,
    ) -> Published:
        """Prepare, submit and confirm. ``retries`` says how often to build the change anew, on what stands
        then, where another one came first; by default never.
        """
        deadline = self._transport.deadline(timeout)
        while True:
            before = self._session.lookup(label, None, False, deadline)
            opening = os.urandom(OPENING_LENGTH)
            submission = build_submission(before, profile, signing_keys, opening, new_authorized_keys)
            try:
                return Published(submission, self._publish(submission, wait, deadline))
            except RefusedError as error:
                if error.reason not in ("stale", "conflict") or retries <= 0:
                    raise
            retries -= 1

    def _history(self, label: str, profiles: bool, deadline: float) -> History:
        label = normalize_label(label, self._session.trusted(deadline).configs[0].config.label_policy)
        body = {"label": label, "profiles": profiles}
        answer = self._transport.post("/v1/history", body, deadline, limit=MAX_HISTORY)
        # In this order a change in between makes the history too short, which the next round mends.
        for _ in range(_HISTORY_ROUNDS):
            current = self._session.lookup(label, None, False, deadline)
            told = wire.read_history(answer.body)
            if current.entry is None or len(told) >= current.entry.version:
                break
            answer = self._transport.post("/v1/history", body, deadline, limit=MAX_HISTORY)
        lookups = [self._session.lookup(label, epoch, False, deadline) for epoch in epochs_to_look_up(told)]
        with self._session.saving():
            return verify_history(current, told, lookups)

    def _publish(self, submission: Submission, wait: float, deadline: float) -> Lookup:
        try:
            self._submit(submission, wait, deadline)
        except RefusedError:
            # An answer may have been lost: what is refused now can be what was accepted before.
            lookup = self._session.lookup(submission.label, None, False, deadline)
            if self._stands(submission, lookup, deadline):
                return lookup
            raise
        return self._confirm(submission, deadline)

    def _submit(self, submission: Submission, wait: float, deadline: float) -> wire.Receipt:
        left = max(deadline - time.monotonic(), 0.0)
        body = {
            "label": submission.label,
            "mutation": encode_base64(submission.mutation.encode()),
            "opening": encode_base64(submission.opening),
            "profile": encode_base64(submission.profile),
            "wait": max(0.0, min(wait, _MAX_WAIT, left / 2)),
        }
        receipt = wire.read_receipt(self._transport.post("/v1/mutations", body, deadline).body)
        if receipt.mutation != submission.mutation.entry_hash.hex():
            raise MalformedError("receipt", "is for another mutation")
        return receipt

    def _confirm(self, submission: Submission, deadline: float) -> Lookup:
        pause = 0.05
        while True:
            lookup = self._session.lookup(submission.label, None, False, deadline)
            if self._stands(submission, lookup, deadline):
                return lookup
            version = submission.mutation.entry.version
            if lookup.entry is not None and lookup.entry.version >= version:
                raise RefusedError("conflict", f"another change took version {version}")
            if time.monotonic() + pause >= deadline:
                raise UnavailableError("the change is not in a map head yet; ask again, it is not lost")
            time.sleep(pause)
            pause = min(2 * pause, 1.0)

    def _stands(self, submission: Submission, lookup: Lookup, deadline: float) -> bool:
        """Whether the submitted entry is what ``lookup`` proves, or among what precedes it."""
        wanted, proven = submission.mutation, lookup.mutation
        if proven is None or proven.entry.version < wanted.entry.version:
            return False
        if wanted.entry_hash in (proven.entry_hash, proven.entry.previous):
            return True
        if proven.entry.version <= wanted.entry.version + 1:
            return False
        versions = self._history(submission.label, False, deadline).versions
        return any(version.mutation.entry_hash == wanted.entry_hash for version in versions)
