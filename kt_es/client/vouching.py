"""Who vouches for the log that a client trusts: cosignatures of witnesses and monitors, judged by policies.

A cosignature over a checkpoint of N heads vouches for everything up to epoch N. Front ends have the latest
ones (``GET /v1/cosigned``), and nothing about them is believed: the client knows the cosigners' keys from its
own policy files, and its front end proves that each cosigned checkpoint is an earlier state of the log that
the client trusts. If it is not, both were signed by the directory, and that is evidence.

The latest head is usually newer than the latest cosigned one. Then it is of the same log, and nobody has
vouched for what lies between. How long that may be is ``Policies.age``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kt_es.api.codec import decode_model
from kt_es.api.cosigned import CosignedBody
from kt_es.api.operations import COSIGNED
from kt_es.client.checkpoints import compare_checkpoint
from kt_es.client.session import Session
from kt_es.errors import (
    ConfigError,
    EquivocationError,
    MalformedError,
    NoQuorumError,
    RefusedError,
    VerificationError,
)
from kt_es.formats.cosignatures import CosignerKey, read_cosigned
from kt_es.formats.heads import SignedMapHead
from kt_es.formats.policies import MAX_POLICY_SIZE, NO_QUORUM, Policy

AGE: Final = 3600.0
"""Seconds by which the latest head may be newer than the cosigned one, unless the caller says otherwise."""

_KEPT: Final = 5.0
"""Seconds for which an answer about cosignatures counts for further questions."""

_AHEAD: Final = 300
"""Seconds by which the clock of a cosigner may be ahead of this one."""


def read_policy(path: Path) -> Policy:
    """Read a policy file. Raises ``ConfigError``, which names the file and the line."""
    try:
        with path.open("rb") as file:
            return Policy.parse(file.read(MAX_POLICY_SIZE + 1))
    except OSError as error:
        raise ConfigError(f"policy {path} cannot be read: {error.strerror}; name another file") from None
    except MalformedError as error:
        raise ConfigError(f"policy {path}: {error.problem}; correct the file") from None


@dataclass(frozen=True, slots=True)
class Policies:
    """Whose cosignatures a client needs: by ``witnesses``, by ``monitors``, or by both.

    ``age`` is how many seconds the latest head may be newer than the one for which a quorum vouches.
    """

    witnesses: Policy | None = None
    monitors: Policy | None = None
    age: float = AGE

    def named(self) -> Iterator[tuple[str, Policy]]:
        """Yield each policy with the plural noun of its cosigners."""
        if self.witnesses is not None:
            yield "witnesses", self.witnesses
        if self.monitors is not None:
            yield "monitors", self.monitors


NO_POLICIES: Final = Policies()
"""Nobody has to vouch."""


@dataclass(frozen=True, slots=True)
class Voucher:
    """A cosigner, ``name`` in its policy, vouches up to ``epoch``, as of ``time`` in seconds since 1970."""

    kind: str
    name: str
    epoch: int
    time: int


@dataclass(frozen=True, slots=True)
class Quorum:
    """A quorum of ``kind`` vouches up to ``epoch``, whose head has the ``timestamp``, in ms since 1970.

    ``epoch`` is 0 if the policy needs nobody.
    """

    kind: str
    name: str
    epoch: int
    timestamp: int


@dataclass(frozen=True, slots=True)
class Vouched:
    """Who vouches for the trusted log, and for what. ``epoch`` and ``timestamp`` are of its latest head.

    ``vouchers`` are all cosigners that count, also beyond the quorum.
    """

    epoch: int
    timestamp: int
    quorums: tuple[Quorum, ...]
    vouchers: tuple[Voucher, ...]


class Vouching:
    """Asks who vouches, and judges by ``policies`` each answer of ``session``. Safe for threads."""

    def __init__(self, session: Session, policies: Policies) -> None:
        self.last: Vouched | None = None
        """What held for the last answer of the client; None without policies."""
        session.gate = self.gate
        self._session = session
        self._policies = policies
        self._until = 0.0
        self._busy = threading.local()
        self._keys = cosigner_keys(policies)

    def gate(self, deadline: float) -> None:
        """Raise ``NoQuorumError`` unless the policies are satisfied for what the client trusts now.

        The questions that this asks pass without the gate. Raises what ``Comparing.compare`` raises, too.
        """
        if getattr(self._busy, "now", False) or not self._keys:
            return
        with self._asking():
            trusted = self._session.directory.trusted(deadline)
            if trusted.checkpoint is None:
                return
            smh = trusted.smh or self._session.head(None, deadline, fresh=False).smh
            head = SignedMapHead.decode(smh).head
            last = self.last
            if last is None or time.monotonic() >= self._until or not self._covers(last, head.timestamp):
                self.last = self._judged(self._vouchers(deadline), head.epoch, head.timestamp, deadline)
                self._until = time.monotonic() + _KEPT

    @contextmanager
    def _asking(self) -> Iterator[None]:
        self._busy.now = True
        try:
            yield
        finally:
            self._busy.now = False

    def _covers(self, last: Vouched, timestamp: int) -> bool:
        return all(self._is_recent(quorum, timestamp) for quorum in last.quorums)

    def _is_recent(self, quorum: Quorum, timestamp: int) -> bool:
        return not quorum.epoch or timestamp - quorum.timestamp <= self._policies.age * 1000

    def _vouchers(self, deadline: float) -> list[Voucher]:
        """Return the latest statement of each cosigner of the policies that the front end has."""
        try:
            answer = self._session.transport.get(COSIGNED.path, deadline)
            notes = decode_model(CosignedBody, answer.body).heads
        except RefusedError as error:
            raise NoQuorumError(f"the server has no cosigned heads: {error.problem}") from None
        found: dict[tuple[str, str], Voucher] = {}
        keys = {key for known in self._keys.values() for key in known}
        for note in notes:
            try:
                cosigners = read_cosigned(note, keys).cosigners
                size = compare_checkpoint(self._session, "heads", note.encode(), deadline) if cosigners else 0
            except EquivocationError:
                raise
            except (MalformedError, VerificationError) as error:
                if isinstance(error, VerificationError) and error.step == "comparison":
                    raise
                # Junk of a front end counts as nothing; so would a front end that left the note out.
                continue
            for key, at in cosigners.items():
                if at > self._session.now() / 1000 + _AHEAD:
                    continue
                for kind, known in self._keys.items():
                    if key in known:
                        voucher = Voucher(kind, known[key], size, at)
                        before = found.get((kind, voucher.name))
                        if before is None or before.epoch < size:
                            found[kind, voucher.name] = voucher
        return list(found.values())

    def _judged(self, vouchers: Sequence[Voucher], epoch: int, timestamp: int, deadline: float) -> Vouched:
        quorums = []
        for kind, policy in self._policies.named():
            of_kind = [voucher for voucher in vouchers if voucher.kind == kind]
            reached = quorum_epoch(policy, {voucher.name: voucher.epoch for voucher in of_kind})
            if reached is None:
                raise NoQuorumError(_missing(kind, policy, of_kind))
            when = self._timestamp(reached, deadline) if reached else 0
            quorum = Quorum(kind, policy.quorum, reached, when)
            if not self._is_recent(quorum, timestamp):
                raise NoQuorumError(
                    f"the quorum {policy.quorum} of {kind} vouches up to epoch {reached} only, whose head is "
                    f"{(timestamp - when) / 1000:.0f} s older than that of epoch {epoch}; at most "
                    f"{self._policies.age:.0f} s are allowed"
                )
            quorums.append(quorum)
        return Vouched(epoch, timestamp, tuple(quorums), tuple(vouchers))

    def _timestamp(self, epoch: int, deadline: float) -> int:
        session = self._session
        return session.ask(lambda trusted: session.asked(trusted, epoch, deadline), deadline).head.timestamp


def cosigner_keys(policies: Policies) -> Mapping[str, Mapping[CosignerKey, str]]:
    """Return the keys that can be verified here, with the names in their policy, by the kind of policy."""
    return {
        kind: {
            CosignerKey.parse(cosigner.vkey): cosigner.name
            for cosigner in policy.cosigners
            if _is_usable(cosigner.vkey)
        }
        for kind, policy in policies.named()
    }


def quorum_epoch(policy: Policy, epochs: Mapping[str, int]) -> int | None:
    """Return the latest epoch for which a quorum vouches, 0 if nobody is needed, None without a quorum.

    Args:
        policy: Says what a quorum is.
        epochs: Up to which epoch each cosigner, by its name in ``policy``, vouches.
    """
    if policy.quorum == NO_QUORUM:
        return 0
    for epoch in sorted(set(epochs.values()), reverse=True):
        if epoch and policy.is_satisfied([name for name, reached in epochs.items() if reached >= epoch]):
            return epoch
    return None


def _is_usable(vkey: str) -> bool:
    """Return whether cosignatures by this key can be verified here: not where ML-DSA-44 is missing."""
    try:
        CosignerKey.parse(vkey)
        return True
    except MalformedError:
        return False


def _missing(kind: str, policy: Policy, vouchers: Sequence[Voucher]) -> str:
    there = {voucher.name for voucher in vouchers}
    missing = [cosigner.name for cosigner in policy.cosigners if cosigner.name not in there]
    unusable = [cosigner.name for cosigner in policy.cosigners if not _is_usable(cosigner.vkey)]
    who = ", ".join(sorted(there)) or "nobody"
    problem = f"no quorum {policy.quorum} of {kind}: {who} vouched, and {', '.join(missing)} did not"
    if unusable:
        problem += f" ({', '.join(unusable)} cannot be verified here: ML-DSA-44 needs a newer cryptography)"
    return f"{problem}; ask again later, or ask another front end"
