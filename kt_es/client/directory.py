"""The state of a client towards its directory: how it begins, grows and is stored.

The order is always the same: fetch, verify, store.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from kt_es.api.codec import Json, decode_model
from kt_es.api.models import ConsistencyBody, DirectoryBody, HeadBody
from kt_es.api.operations import DIRECTORY
from kt_es.api.paths import consistency_path
from kt_es.client.entries import KIND as ACCOUNTS
from kt_es.client.entries import Account, remember, verify_memory
from kt_es.client.heads import contradictions, merge
from kt_es.client.state import StateStore, decoded
from kt_es.client.transport import Transport
from kt_es.client.trust import Lookup
from kt_es.client.trusted import Pinned, Trusted, begin, extend, first_use, pin, position_of_key
from kt_es.errors import (
    ConfigError,
    EquivocationError,
    MalformedError,
    RefusedError,
    UnavailableError,
    VerificationError,
)
from kt_es.evidence import convicted_before
from kt_es.formats.configs import SignedConfig, check_directory, check_origin
from kt_es.formats.heads import SignedMapHead
from kt_es.formats.labels import LABEL_POLICIES
from kt_es.formats.proofs import decode_configs

# Seconds for the request that finds out to which directory an unavailable server belongs.
_IDENTITY_DEADLINE = 1.0


@dataclass(frozen=True, slots=True)
class Directory:
    """The description of a directory by its server, with the verified chain of configs.

    ``on_first_use`` is True if only the server vouched for the pinned key.
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


class DirectoryState:
    """What one client trusts of the directory of one server.

    Safe for threads: everything is kept in ``store``, whose ``replace`` compares before it sets. Without a
    ``pinned`` key the first config of the directory is trusted on first use. The caller expects ``origin``.
    """

    def __init__(
        self, transport: Transport, store: StateStore, *, pinned: Pinned | None, origin: str | None
    ) -> None:
        self.store = store
        self.on_first_use = False
        """The directory was trusted because it was the first to answer."""
        self._transport = transport
        transport.on_unavailable = self._check_identity
        self._pinned = pinned
        self._origin = origin if pinned is None else origin or pinned.origin

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Save the evidence of a contradiction that the block raises. The error is raised in any case."""
        try:
            yield
        except EquivocationError as error:
            if error.saved is None and error.evidence is not None:
                error.saved = self.store.save_evidence(error.evidence)
            raise

    def trusted(self, deadline: float) -> Trusted:
        """Return the stored state, or the first state; it is of the directory that the caller expects.

        Raises ``EquivocationError`` if the directory was convicted before.
        """
        with self.saving():
            stored = self._continue_older(self.store.load(), deadline)
            while stored is None:
                stored = self._continue_older(self._begin(deadline), deadline)
            if self._origin is not None and stored.origin != self._origin:
                raise VerificationError("config", f"the directory is {stored.origin}, not {self._origin}")
            if self._pinned is not None:
                if position_of_key(stored.configs, self._pinned.key) is None:
                    _, stored = self.refresh(stored, deadline)
                pinned = pin(stored, self._pinned)
                stored = stored if pinned is stored else self.advance(stored, pinned, deadline)
            check_unconvicted(self.store, stored)
            return stored

    def with_first_use(self, trusted: Trusted, lookup: Lookup) -> Lookup:
        """Return ``lookup``, with one more line of checks if only the server vouched for the pinned key."""
        if not self.on_first_use:
            return lookup
        line = f"directory key pinned on first use: {trusted.pinned.vkey}"
        return replace(lookup, checks=(line, *lookup.checks))

    def _begin(self, deadline: float) -> Trusted | None:
        answer, configs = self._ask(deadline)
        pinned = self._pinned or first_use(configs)
        origin = self._origin or answer.origin
        if answer.origin != origin or pinned.origin != origin:
            raise VerificationError("config", f"the directory is {answer.origin}, not {origin}")
        if self.store.replace(None, begin(pinned, configs)):
            self.on_first_use = self._pinned is None
        return self.store.load()

    def _continue_older(self, stored: Trusted | None, deadline: float) -> Trusted | None:
        """Merge ``stored`` with the states that earlier versions of kt-es kept of the same directory."""
        for old in self.store.older():
            if stored is None:
                self.store.replace(None, old)
            else:
                self.advance(stored, self._merged(stored, old, deadline), deadline)
            self.store.settle(old)
            stored = self.store.load()
        return stored

    def described(self, deadline: float) -> Directory:
        """Fetch and verify the server's description of the directory, and store new configs."""
        answer, trusted = self.refresh(self.trusted(deadline), deadline)
        # The label policy of the answer is not signed, that of the configs is.
        policy = trusted.configs[0].config.label_policy
        return Directory(answer.directory, policy, trusted, self.on_first_use)

    def refresh(self, trusted: Trusted, deadline: float) -> tuple[DirectoryBody, Trusted]:
        """Ask the server for its configs. Returns its answer, and ``trusted`` with these configs, stored."""
        with self.saving():
            answer, configs = self._ask(deadline)
            extended = extend(trusted, configs)
            return answer, trusted if extended is trusted else self.advance(trusted, extended, deadline)

    def advance(self, base: Trusted, after: Trusted, deadline: float) -> Trusted:
        """Store ``after``, which was verified against ``base``. Returns the state that is stored then.

        If another thread or process has stored something in the meantime, both are shown to be of one log.
        """
        while not self.store.replace(base, after):
            stored = self.store.load()
            if stored is None:
                raise ConfigError("the trusted state was removed while it was in use; try again")
            base, after = stored, self._merged(stored, after, deadline)
        return after

    def _merged(self, stored: Trusted, other: Trusted, deadline: float) -> Trusted:
        with self.saving():
            try:
                return merge(stored, other, self.consistency("heads", stored.size, other.size, deadline))
            except EquivocationError:
                raise
            except VerificationError:
                if other.smh is not None and other.checkpoint is not None:
                    for contradiction in contradictions(stored, other.smh, [other.checkpoint]):
                        raise contradiction from None
                raise

    def consistency(self, log: str, first: int, second: int, deadline: float) -> tuple[bytes, ...]:
        """Ask for the consistency proof between two sizes, in either order; empty where none is needed."""
        low, high = sorted((first, second))
        if low in (0, high):
            return ()
        answer = self._transport.get(consistency_path(log, low, high), deadline)
        return decode_model(ConsistencyBody, answer.body).hashes

    def proof_to(self, trusted: Trusted, size: int, deadline: float) -> tuple[bytes, ...]:
        """Ask for the proof that the log of ``size`` heads continues the trusted one; empty if it needs none.

        Raises ``VerificationError`` if the server refuses.
        """
        if size <= trusted.size:
            return ()
        try:
            return self.consistency("heads", trusted.size, size, deadline)
        except RefusedError as error:
            raise VerificationError(
                "consistency", f"the server does not prove that its {size} heads follow: {error}"
            ) from None

    def _ask(
        self, deadline: float, *, patient: bool = True
    ) -> tuple[DirectoryBody, tuple[SignedConfig, ...]]:
        return read_directory(self._transport.get(DIRECTORY.path, deadline, patient=patient).body)

    def _check_identity(self, deadline: float) -> None:
        """Raise if an unavailable server belongs to another directory: waiting for it would not help."""
        trusted = self.store.load()
        if trusted is None:
            return
        until = min(deadline, time.monotonic() + _IDENTITY_DEADLINE)
        with self.saving(), contextlib.suppress(UnavailableError, MalformedError, RefusedError):
            extend(trusted, self._ask(until, patient=False)[1])


def read_directory(body: Mapping[str, Json]) -> tuple[DirectoryBody, tuple[SignedConfig, ...]]:
    """Decode the answer about the directory, and the configs in it. Only their form is checked."""
    answer = decode_model(DirectoryBody, body)
    if answer.label_policy not in LABEL_POLICIES:
        raise MalformedError("label_policy", f"must be one of {', '.join(LABEL_POLICIES)}")
    check_origin(answer.origin)
    check_directory(answer.directory)
    return answer, decode_configs(answer.configs)


def read_head(body: Mapping[str, Json]) -> HeadBody:
    answer = decode_model(HeadBody, body)
    SignedMapHead.decode(answer.smh)
    return answer


def recalled(store: StateStore, index: bytes) -> Account | None:
    """Return the memory of the account at ``index``, None before the first sight. Raises ``ConfigError``."""
    data = store.recall(ACCOUNTS, index)
    return decoded(data, Account.decode, "what this client remembers of the account")


def keep_sight(store: StateStore, trusted: Trusted, lookup: Lookup, *, durable: bool = True) -> None:
    """Remember what ``lookup`` shows. Compares it again with what others have remembered in the meantime.

    What is not ``durable`` survives a power failure only after a later change that does.
    """
    account, sight = lookup.before, lookup.sight
    while (after := remember(account, sight)) != account:
        before = None if account is None else account.encode()
        # The first sight of an entry must survive a power failure. Each lookup finds the last sight again.
        synced = durable and (account is None or account.first.entry != after.first.entry)
        if store.exchange(ACCOUNTS, lookup.index, before, after.encode(), synced=synced):
            return
        account = recalled(store, lookup.index)
        verify_memory(trusted.origin, trusted.configs, lookup.index, account, sight)


def keep_sights(store: StateStore, trusted: Trusted, lookups: Sequence[Lookup]) -> None:
    """Remember what many lookups show, as ``keep_sight`` does, with one sync of the disk for all of them."""
    for lookup in lookups:
        keep_sight(store, trusted, lookup, durable=False)
    first_sights = [one for one in lookups if one.before is None or one.before.last.entry != one.sight.entry]
    kept = None
    # Others may change the value meanwhile. Any synced change of it will do.
    while first_sights and (kept is None or not store.exchange(ACCOUNTS, first_sights[0].index, kept, kept)):
        kept = store.recall(ACCOUNTS, first_sights[0].index)


def check_unconvicted(store: StateStore, trusted: Trusted) -> None:
    """Raise ``EquivocationError`` if evidence in ``store`` convicts the directory of ``trusted``.

    So every question about a convicted directory fails, until a person has moved the evidence away.
    """
    # Later keys are not in the chain of older evidence. The first key is in each chain.
    keys = {trusted.configs[0].config.signer_key}
    for evidence, path in store.evidence():
        if error := convicted_before(evidence, str(path), trusted.origin, keys):
            error.saved = path
            raise error
