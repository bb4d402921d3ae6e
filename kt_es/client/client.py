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
from kt_es.client.heads import SLACK, verify_order
from kt_es.client.histories import read_history
from kt_es.client.history import History, Version
from kt_es.client.kept import kept_versions
from kt_es.client.publishing import Published, Publisher
from kt_es.client.ranges import VerifiedRange
from kt_es.client.session import Head, Session
from kt_es.client.state import StateStore
from kt_es.client.submissions import Submission, build_submission
from kt_es.client.transport import Transport
from kt_es.client.trust import Lookup
from kt_es.client.trusted import Pinned, Trusted
from kt_es.client.vouching import (
    Mine,
    Proposal,
    proposal,
)
from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import RefusedError, StaleHeadError
from kt_es.formats.erasures import Erasure
from kt_es.formats.keys import PublicKey
from kt_es.formats.profiles import OPENING_LENGTH, ProfileKey

_MAX_WAIT = 60.0


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


def wall_clock() -> int:
    """Now, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Client:
    """One server of one directory. Threads may share it; so may processes share its state.

    ``pinned`` or ``origin`` is what the caller expects; without ``pinned`` the directory's first config
    is trusted on first use. ``timeout`` bounds each call as a whole, in seconds. With ``on_stale`` a call
    whose head is too old tells it and asks again, until a fresh one comes or its time is over; without it
    the call fails at once. ``on_waiting`` is told why a call to a server that is away takes long.
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
        on_stale: Callable[[StaleHeadError], None] | None = None,
        on_waiting: Callable[[str], None] | None = None,
    ) -> None:
        self._transport = Transport(
            base_url,
            timeout=timeout,
            verify=verify,
            headers=headers,
            transport=transport,
            connections=connections,
        )
        self._transport.on_waiting = on_waiting
        self._session = Session(
            self._transport, state, pinned=pinned, origin=origin, slack=slack, now=now, on_stale=on_stale
        )
        self._publisher = Publisher(self._session)

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

    def history(
        self, label: str, *, profiles: bool = False, afresh: bool = False, timeout: float | None = None
    ) -> History:
        """Every version of ``label``, verified: since when each holds and who signed it.

        Versions that this client verified before are kept, and only new ones are fetched. ``profiles`` and
        ``afresh`` have all of them fetched and verified anew.
        """
        deadline = self._transport.deadline(timeout)
        return read_history(self._session, label, deadline, profiles=profiles, afresh=afresh)

    def kept(self, label: str) -> tuple[Version, ...]:
        """The versions of ``label`` that were verified before and are kept; nothing is asked."""
        return kept_versions(self._session.state, label)

    def range(self, label: str, first: int, last: int, *, timeout: float | None = None) -> VerifiedRange:
        """What stood at ``label`` in each epoch from ``first`` to ``last``, at most 256 of them.

        The answer may end before ``last``: ask again for the rest.
        """
        return self._session.range(label, first, last, self._transport.deadline(timeout))

    def recall(self, kind: str, key: bytes) -> bytes | None:
        """What the state of this client remembers under ``kind`` and ``key``, None if nothing is."""
        return self._session.state.recall(kind, key)

    def remember(self, kind: str, key: bytes, data: bytes) -> None:
        """Remember ``data`` durably in the state of this client."""
        self._session.state.remember(kind, key, data)

    def exchange(self, kind: str, key: bytes, expected: bytes | None, data: bytes) -> bool:
        """Remember ``data`` durably if ``expected`` is what is remembered; else say False."""
        return self._session.state.exchange(kind, key, expected, data)

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

    def propose(
        self,
        before: Lookup,
        profile: Sequence[ProfileKey],
        signing_keys: Sequence[PrivateKey],
        new_authorized_keys: Sequence[PublicKey] | None = None,
        *,
        mine: Mine | None = None,
        without: Sequence[PublicKey] = (),
        timeout: float | None = None,
    ) -> Proposal:
        """A signed change of what ``before`` proves, see ``build_submission``; nothing is sent.

        ``without`` takes these keys off the authorized ones, and ``new_authorized_keys`` come beside the
        others instead of in their place.

        ``mine`` are the keys that the caller knows, by default ``signing_keys``. Raises ``RefusedError``
        with the reason ``unknown-keys`` where the change would keep an authorized key that neither the
        caller knows nor a version has that one of these keys signed. The history up to ``before`` is
        verified for that.
        """
        held = frozenset(PublicKey(key.algorithm, key.public) for key in signing_keys)
        mine = Mine(held) if mine is None else Mine(mine.held | held, mine.declared)
        # Without a key of the present version nothing can be signed, which ``build_submission`` says.
        if before.entry is not None and not held.isdisjoint(before.entry.authorized_keys):
            # Keys that the caller names for the new version are the caller's word.
            kept = () if new_authorized_keys is not None and not without else before.entry.authorized_keys
            kept = tuple(key for key in kept if key not in without)
            self._publisher.verify_past(before, kept, mine, self._transport.deadline(timeout))
            if without:
                new_authorized_keys = (*kept, *(new_authorized_keys or ()))
        opening = os.urandom(OPENING_LENGTH)
        submission = build_submission(before, profile, signing_keys, opening, new_authorized_keys)
        return proposal(before, submission, profile)

    def prepare(
        self,
        label: str,
        profile: Sequence[ProfileKey],
        signing_keys: Sequence[PrivateKey],
        new_authorized_keys: Sequence[PublicKey] | None = None,
        *,
        timeout: float | None = None,
    ) -> Submission:
        """A signed change of ``label`` as it stands now, see ``propose``; nothing is sent."""
        before = self.lookup(label, profile=False, timeout=timeout)
        return self.propose(before, profile, signing_keys, new_authorized_keys, timeout=timeout).submission

    def send(self, proposed: Proposal, *, wait: float = 10.0, timeout: float | None = None) -> Published:
        """Submit what was proposed, and confirm it. Raises ``RefusedError`` if another change came first."""
        deadline = self._transport.deadline(timeout)
        return Published(proposed.submission, self._publisher.publish(proposed.submission, wait, deadline))

    def submit(
        self, submission: Submission, *, wait: float = 0.0, timeout: float | None = None
    ) -> wire.Receipt:
        """Send ``submission``, the same bytes again while the server is unavailable.

        ``wait`` is how many seconds the server may take to answer with the verdict. Raises
        ``RefusedError`` with the verdict, and ``UnavailableError`` when the outcome is unknown: then the
        same submission may be sent again at any time.
        """
        return self._publisher.submit(submission, wait, self._transport.deadline(timeout))

    def confirm(self, submission: Submission, *, timeout: float | None = None) -> Lookup:
        """Wait until ``submission``, or a successor of it, is proven in the map.

        Raises ``RefusedError`` if another change took its place, ``UnavailableError`` if no head has it in
        time: the change is not lost, ask again.
        """
        return self._publisher.confirm(submission, self._transport.deadline(timeout))

    def submit_erasure(self, erasure: Erasure, *, timeout: float | None = None) -> None:
        """Submit the signed erasure of one entry's profile.

        Raises ``RefusedError`` where its key may not erase, and ``UnavailableError`` when the outcome is
        unknown: then the same erasure may be sent again at any time.
        """
        self._publisher.submit_erasure(erasure, self._transport.deadline(timeout))

    def confirm_erasure(self, label: str, version: Version, *, timeout: float | None = None) -> Lookup:
        """Wait until it is proven that the profile of ``version`` of ``label`` was erased.

        Raises ``UnavailableError`` if no head has it in time: the erasure is not lost, ask again.
        """
        return self._publisher.confirm_erasure(label, version, self._transport.deadline(timeout))

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
            left = deadline - time.monotonic()
            proposed = self.propose(before, profile, signing_keys, new_authorized_keys, timeout=left)
            try:
                return Published(
                    proposed.submission, self._publisher.publish(proposed.submission, wait, deadline)
                )
            except RefusedError as error:
                if error.reason not in ("stale", "conflict") or retries <= 0:
                    raise
            retries -= 1
