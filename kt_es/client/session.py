"""One client's dealings with one server: whom it trusts, what it stores, how it looks up.

The order is always the same: fetch, verify, store the new trusted state and what is remembered, return.
Deadlines are those of ``transport``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from kt_es.api.codec import decode_model
from kt_es.api.models import ConsistencyBody, HeadBody, LookupBody, LookupRequest, RangeBody, RangeRequest
from kt_es.api.operations import DIRECTORY, LOOKUP, RANGE, ProblemReason, consistency_path, head_path
from kt_es.client import wire
from kt_es.client.accounts import keep_sight, recalled
from kt_es.client.convictions import check_unconvicted
from kt_es.client.heads import (
    ClaimedHead,
    ProvenHead,
    contradictions,
    merge,
    verify_freshness,
    verify_head,
    verify_mutations_checkpoint,
)
from kt_es.client.ranges import VerifiedRange, open_range, verify_range
from kt_es.client.state import StateStore
from kt_es.client.transport import Answer, Transport
from kt_es.client.trust import Lookup, open_answer, verify_lookup
from kt_es.client.trusted import Pinned, Trusted, begin, claimed_size, extend, first_use, pin
from kt_es.errors import (
    ConfigError,
    EquivocationError,
    KtError,
    MalformedError,
    RefusedError,
    StaleHeadError,
    UnavailableError,
    VerificationError,
)
from kt_es.formats.heads import MapHead, SignedMapHead
from kt_es.formats.labels import normalize_label

# A front end may be a moment behind the one that answered before.
_LAG_PAUSES = (0.1, 0.2, 0.4, 0.8)
# Between two looks for a fresh head.
_STALE_PAUSE = 0.5
# For the question which directory a server is of that does not answer another question.
_IDENTITY_DEADLINE = 1.0

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Head:
    """A verified head, with the latest checkpoint of the log that it stands in and its log of mutations."""

    proven: ProvenHead
    smh: bytes
    heads_checkpoint: str
    mutations_checkpoint: str

    @property
    def head(self) -> MapHead:
        return self.proven.head


class Session:
    """Safe for threads: all it keeps is in ``state``, whose ``replace`` compares before it sets."""

    def __init__(
        self,
        transport: Transport,
        state: StateStore,
        *,
        pinned: Pinned | None,
        origin: str | None,
        slack: int,
        now: Callable[[], int],
        on_stale: Callable[[StaleHeadError], None] | None = None,
    ) -> None:
        self.transport = transport
        transport.on_unavailable = self._check_directory
        self.on_first_use = False
        self.state = state
        self._pinned = pinned
        self._origin = origin if pinned is None else origin or pinned.origin
        self._slack = slack
        self._now = now
        self._on_stale = on_stale

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Save the evidence of a contradiction that is found inside; the verdict does not depend on it."""
        try:
            yield
        except EquivocationError as error:
            if error.saved is None and error.evidence is not None:
                error.saved = self.state.save_evidence(error.evidence)
            raise

    def trusted(self, deadline: float) -> Trusted:
        """The stored state, or the one to begin with; of the directory that the caller expects.

        Raises ``EquivocationError`` if that directory was convicted before.
        """
        with self.saving():
            stored = self._continue_older(self.state.load(), deadline)
            while stored is None:
                stored = self._continue_older(self._begin(deadline), deadline)
            if self._origin is not None and stored.origin != self._origin:
                raise VerificationError("config", f"the directory is {stored.origin}, not {self._origin}")
            if self._pinned is not None:
                if stored.position_of(self._pinned.key) is None:
                    _, stored = self.refresh(stored, deadline)
                pinned = pin(stored, self._pinned)
                stored = stored if pinned is stored else self.store(stored, pinned, deadline)
            check_unconvicted(self.state, stored)
            return stored

    def _begin(self, deadline: float) -> Trusted | None:
        told = self._directory(deadline)
        pinned = self._pinned or first_use(told.configs)
        origin = self._origin or told.origin
        if told.origin != origin or pinned.origin != origin:
            raise VerificationError("config", f"the directory is {told.origin}, not {origin}")
        if not self.state.replace(None, begin(pinned, told.configs)):
            return self.state.load()
        self.on_first_use = self._pinned is None
        return self.state.load()

    def _continue_older(self, stored: Trusted | None, deadline: float) -> Trusted | None:
        """``stored``, merged with the states that earlier versions of kt-es kept of the same directory."""
        for old in self.state.older():
            if stored is None:
                self.state.replace(None, old)
            else:
                self.store(stored, self._merged(stored, old, deadline), deadline)
            self.state.settle(old)
            stored = self.state.load()
        return stored

    def _directory(self, deadline: float, *, patient: bool = True) -> wire.DirectoryAnswer:
        """What the server says of the directory; only its form is checked."""
        return wire.read_directory(self.transport.get(DIRECTORY.path, deadline, patient=patient).body)

    def refresh(self, trusted: Trusted, deadline: float) -> tuple[wire.DirectoryAnswer, Trusted]:
        """What the server says of the directory now, and ``trusted`` extended by its configs, stored."""
        with self.saving():
            told = self._directory(deadline)
            extended = extend(trusted, told.configs)
            return told, trusted if extended is trusted else self.store(trusted, extended, deadline)

    def store(self, base: Trusted, after: Trusted, deadline: float) -> Trusted:
        """Store ``after``, which was verified against ``base``; what is stored then.

        Where another thread or process stored something since, both are shown to be of one log.
        """
        while not self.state.replace(base, after):
            stored = self.state.load()
            if stored is None:
                raise ConfigError("the trusted state was removed while it was in use")
            base, after = stored, self._merged(stored, after, deadline)
        return after

    def _merged(self, stored: Trusted, other: Trusted, deadline: float) -> Trusted:
        """The later of two states of this client, shown to be of one log. Raises what they contradict in."""
        with self.saving():
            try:
                return merge(stored, other, self.path("heads", stored.size, other.size, deadline))
            except EquivocationError:
                raise
            except VerificationError:
                if other.smh is not None and other.checkpoint is not None:
                    for lie in contradictions(stored, other.smh, [other.checkpoint]):
                        raise lie from None
                raise

    def path(self, log: str, first: int, second: int, deadline: float) -> tuple[bytes, ...]:
        """The server's consistency proof between two sizes in either order; empty where none is needed."""
        low, high = sorted((first, second))
        if low in (0, high):
            return ()
        answer = self.transport.get(consistency_path(log, low, high), deadline)
        return decode_model(ConsistencyBody, answer.body).hashes

    def lookup(self, label: str, epoch: int | None, profile: bool, deadline: float) -> Lookup:
        """``trust.verify_lookup`` of what the server answers; trust and memory are stored."""
        return self._asked(lambda trusted: self._look_up(trusted, label, epoch, profile, deadline), deadline)

    def head(self, epoch: int | None, deadline: float, *, fresh: bool = True) -> Head:
        """The verified head of ``epoch``, by default the latest one, which has to be ``fresh``."""
        return self._asked(lambda trusted: self._look_at(trusted, epoch, fresh, deadline), deadline)

    def range(self, label: str, first: int, last: int, deadline: float) -> VerifiedRange:
        """What stood at ``label`` in the epochs from ``first`` to ``last``, or to an earlier one."""
        return self._asked(lambda trusted: self._look_over(trusted, label, first, last, deadline), deadline)

    def _asked(self, ask: Callable[[Trusted], _T], deadline: float) -> _T:
        """What ``ask`` finds, asked again where the server was a moment behind or a key was rotated.

        And, with ``on_stale``, until the head is fresh or the deadline comes.
        """
        lags = iter(_LAG_PAUSES)
        stale: StaleHeadError | None = None
        with self.saving():
            while True:
                trusted = self.trusted(deadline)
                try:
                    return ask(trusted)
                except StaleHeadError as error:
                    if self._on_stale is None or time.monotonic() + _STALE_PAUSE >= deadline:
                        raise
                    stale = error
                    self._on_stale(error)
                    time.sleep(_STALE_PAUSE)
                except UnavailableError:
                    if stale is None:
                        raise
                    # The time for the last look was too short: what was waited for is the reason.
                    raise stale from None
                except EquivocationError:
                    raise
                except VerificationError as error:
                    # A key rotation that this client has not heard of yet looks like a wrong key.
                    rotated = error.step in ("config", "checkpoint")
                    if rotated and self.refresh(trusted, deadline)[1].configs != trusted.configs:
                        continue
                    if error.step == "rollback" and (pause := next(lags, None)) is not None:
                        time.sleep(pause)
                        continue
                    if error.step == "consistency":
                        self._confront(self.trusted(deadline), deadline)
                    raise

    def _check_directory(self, deadline: float) -> None:
        """Raise if a server that is unavailable is of another directory: it might be so for ever."""
        trusted = self.state.load()
        if trusted is None:
            return
        until = min(deadline, time.monotonic() + _IDENTITY_DEADLINE)
        with self.saving(), contextlib.suppress(UnavailableError, MalformedError, RefusedError):
            extend(trusted, self._directory(until, patient=False).configs)

    def _look_up(
        self, trusted: Trusted, label: str, epoch: int | None, profile: bool, deadline: float
    ) -> Lookup:
        label = normalize_label(label, trusted.configs[0].config.label_policy)
        request = LookupRequest(label, epoch, trusted.size or None, profile)
        reply = decode_model(LookupBody, self.transport.post(LOOKUP.path, request, deadline).body)
        after, lookup = verify_lookup(
            trusted,
            label,
            open_answer(reply.answer),
            reply.profile,
            reply.consistency,
            now=self._now(),
            epoch=epoch,
            slack=self._slack,
            profile_wanted=profile,
            recall=lambda index: recalled(self.state, index),
        )
        self.store(trusted, after, deadline)
        keep_sight(self.state, after, lookup)
        if self.on_first_use:
            line = f"directory key pinned on first use: {trusted.pinned.vkey}"
            lookup = replace(lookup, checks=(line, *lookup.checks))
        return lookup

    def _look_over(
        self, trusted: Trusted, label: str, first: int, last: int, deadline: float
    ) -> VerifiedRange:
        request = RangeRequest(label, first, last, trusted.size or None)
        told = decode_model(RangeBody, self._ranged(trusted, request, deadline).body)
        answer = open_range(told.answer)
        after, seen = verify_range(trusted, label, answer, told.consistency, first=first, last=last)
        self.store(trusted, after, deadline)
        return seen

    def _ranged(self, trusted: Trusted, request: RangeRequest, deadline: float) -> Answer:
        """The answer about a range; asked again where a front end is behind the one that answered before."""
        for pause in (*_LAG_PAUSES, None):
            try:
                return self.transport.post(RANGE.path, request, deadline)
            except RefusedError as error:
                if error.reason != ProblemReason.UNKNOWN_EPOCH or request.last > trusted.size:
                    raise
            if pause is not None:
                time.sleep(pause)
        raise UnavailableError(
            f"the server does not know epoch {request.last} yet, which has been verified before"
        )

    def _look_at(self, trusted: Trusted, epoch: int | None, fresh: bool, deadline: float) -> Head:
        told = self._told_head(epoch, deadline, since=trusted.size)
        size = claimed_size(told.latest_checkpoint)
        try:
            proof = self.path("heads", trusted.size, size, deadline) if size > trusted.size else ()
        except RefusedError as error:
            raise VerificationError(
                "consistency", f"the server does not prove that its {size} heads follow: {error}"
            ) from None
        shown = ClaimedHead(told.smh, told.latest_checkpoint, told.inclusion, proof)
        proven = verify_head(trusted, shown, epoch)
        verify_mutations_checkpoint(proven, told.smh, told.mutations_checkpoint)
        for lie in contradictions(proven.after, told.smh, [told.heads_checkpoint]):
            raise lie
        if epoch is None and fresh:
            verify_freshness(proven.head, proven.config, self._now(), self._slack)
        self.store(trusted, proven.after, deadline)
        return Head(proven, told.smh, told.latest_checkpoint, told.mutations_checkpoint)

    def _told_head(self, epoch: int | None, deadline: float, *, since: int = 0) -> HeadBody:
        return wire.read_head(self.transport.get(head_path(epoch, since), deadline).body)

    def _confront(self, trusted: Trusted, deadline: float) -> None:
        """Ask for heads that the server must still have, after a proof that leads on from no trusted log.

        A proof that fails shows nothing by itself. Two signed statements that contradict each other do: the
        first that is found is raised as ``EquivocationError``. A server that will not say leaves the failure
        what it was.
        """
        known = None if trusted.smh is None else SignedMapHead.decode(trusted.smh).head.epoch
        for epoch in dict.fromkeys((trusted.size, known, None)):
            try:
                told = self._told_head(epoch, deadline)
            except KtError:
                continue
            checkpoints = (told.heads_checkpoint, told.latest_checkpoint)
            for error in contradictions(trusted, told.smh, checkpoints, told.mutations_checkpoint):
                raise error
