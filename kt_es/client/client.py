"""``Client``: the client of one directory. The questions are in ``session``, changes in ``publishing``."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence

import httpx

from kt_es.client.batching import lookup_many
from kt_es.client.changes import Mine, Proposal, Submission
from kt_es.client.comparing import Comparing
from kt_es.client.directory import Directory, DirectoryState
from kt_es.client.following import Following
from kt_es.client.heads import SLACK
from kt_es.client.history import History, Version, kept_versions
from kt_es.client.publishing import Published, Publisher, Receipt
from kt_es.client.ranges import VerifiedRange
from kt_es.client.registering import Registering
from kt_es.client.session import DirectoryHead, Session
from kt_es.client.state import StateStore
from kt_es.client.statuses import SubmissionStatus
from kt_es.client.submitting import Submitted, submit_many
from kt_es.client.transport import Transport
from kt_es.client.trust import Lookup
from kt_es.client.trusted import Pinned, Trusted
from kt_es.client.vouching import Policies, Vouching
from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import StaleHeadError
from kt_es.formats.entries import ProfileKey, PublicKey
from kt_es.formats.erasures import Erasure
from kt_es.process.clock import wall_clock


class Client:
    """A client of one server. Threads may share a client, and processes may share its state.

    The new checkpoint and the memory of the account are stored before a call returns. Where two signed
    statements contradict each other, ``EquivocationError`` carries the evidence and where it is saved.

    Args:
        base_url: The address of any front end of the directory; ``ConfigError`` says if it is unusable.
        state: Where the client keeps what it trusts and remembers.
        pinned: The pinned key. Without it the first config of the directory is trusted on first use.
        origin: The origin of the directory, None if it may be any.
        timeout: Seconds for each call as a whole, repetitions included, unless the call has its own.
        slack: Milliseconds by which clocks may differ.
        verify: The TLS context, or whether the certificate of the server is verified.
        registration: The token or proof that is sent with first versions; ``Submission`` may have its own.
        policies: Whose cosignatures every answer needs; without them ``NoQuorumError`` is raised.
        now: Returns milliseconds since 1970.
        on_stale: Called when the head is too old; the call then asks again, until the head is fresh or the
            time is over. Without it the call fails at once.
        on_waiting: Called with the reason when a call to an unavailable server takes long.
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
        registration: str | None = None,
        policies: Policies | None = None,
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
        self._state = state
        self._directory = DirectoryState(self._transport, state, pinned=pinned, origin=origin)
        self._session = Session(self._transport, self._directory, slack=slack, now=now, on_stale=on_stale)
        self.vouching = Vouching(self._session, policies or Policies())
        self._publisher = Publisher(self._session, registration)
        self.following = Following(self._session)
        """Each new head as it is published."""
        self.comparing = Comparing(self._session, verify)
        """What others were shown, beside what this client trusts."""
        self.registering = Registering(self._session)
        """How new labels are registered there, and proofs that are sent by mail."""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    @property
    def on_first_use(self) -> bool:
        """Whether this client trusted the directory because it was the first to answer."""
        return self._directory.on_first_use

    def directory(self, *, timeout: float | None = None) -> Directory:
        """Fetch and verify the server's description of the directory. New configs are stored."""
        return self._directory.described(self._transport.deadline(timeout))

    def trusted(self) -> Trusted:
        """Return the state of this client. Before the first lookup the directory is asked for its configs."""
        return self._directory.trusted(self._transport.deadline())

    def lookup(
        self, label: str, epoch: int | None = None, *, profile: bool = True, timeout: float | None = None
    ) -> Lookup:
        """Look up ``label`` now, or in an earlier ``epoch``. Proven absence is a result (``Lookup.absent``).

        Raises:
            VerificationError: Something in the answer is not as it is signed; ``step`` names the check.
            EquivocationError: Two signed statements contradict each other.
            CannotTellError: The latest head is not fresh. ``UnavailableError``: No answer in time.
            RefusedError: The directory does not have the epoch. ``LabelError``: It cannot have the label.
        """
        return self._session.lookup(label, epoch, profile, self._transport.deadline(timeout))

    def lookup_many(
        self,
        labels: Sequence[str],
        epoch: int | None = None,
        *,
        profile: bool = True,
        timeout: float | None = None,
    ) -> list[Lookup]:
        """Look many labels up, up to 1000 in one request, and return a lookup for each, in their order.

        Each lookup is what ``lookup`` returns, and each label is remembered. Without ``epoch``, the labels of
        different requests may be of different epochs. Raises what ``lookup`` raises if one label fails.
        """
        return lookup_many(self._session, labels, epoch, profile, self._transport.deadline(timeout))

    def history(
        self, label: str, *, profiles: bool = False, afresh: bool = False, timeout: float | None = None
    ) -> History:
        """Fetch every version of ``label``: since when each of them holds, and who signed it.

        Versions that this client verified before are kept, and only new ones are fetched. With ``profiles``
        or ``afresh`` all of them are fetched and verified again.
        """
        deadline = self._transport.deadline(timeout)
        return self._session.history(label, deadline, profiles=profiles, afresh=afresh)

    def kept(self, label: str) -> tuple[Version, ...]:
        """Return the versions of ``label`` that are kept from earlier calls. The server is not asked."""
        return kept_versions(self._state, label)

    def range(self, label: str, first: int, last: int, *, timeout: float | None = None) -> VerifiedRange:
        """Fetch the entries of ``label`` from epoch ``first`` to ``last`` or an earlier one; at most 256."""
        return self._session.range(label, first, last, self._transport.deadline(timeout))

    def recall(self, kind: str, key: bytes) -> bytes | None:
        """Return the value in the state of this client under ``kind`` and ``key``, None if there is none."""
        return self._state.recall(kind, key)

    def remember(self, kind: str, key: bytes, data: bytes) -> None:
        """Store ``data`` durably in the state of this client."""
        self._state.remember(kind, key, data)

    def exchange(self, kind: str, key: bytes, expected: bytes | None, data: bytes) -> bool:
        """Store ``data`` durably if ``expected`` is the stored value; otherwise return False."""
        return self._state.exchange(kind, key, expected, data)

    def head(
        self, epoch: int | None = None, *, fresh: bool = True, timeout: float | None = None
    ) -> DirectoryHead:
        """Fetch the latest head, or the head of ``epoch``, and verify that it continues the trusted log.

        Without ``fresh`` the latest head may be old, and the caller has to judge its age.
        """
        return self._session.head(epoch, self._transport.deadline(timeout), fresh=fresh)

    def heads(self, last: int, *, timeout: float | None = None) -> list[DirectoryHead]:
        """Fetch the ``last`` heads of the log, oldest first, and verify each of them and their order."""
        return self._session.heads(last, self._transport.deadline(timeout))

    def consistency(
        self, log: str, first: int, second: int, *, timeout: float | None = None
    ) -> tuple[bytes, ...]:
        """Fetch a consistency proof for ``log`` (``heads`` or ``mutations``). It is not verified."""
        return self._directory.consistency(log, first, second, self._transport.deadline(timeout))

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
        """Build and sign a change of what ``before`` proves; nothing is sent. The history is verified first.

        Args:
            before: A verified lookup of the latest epoch.
            profile: The keys of the account from then on.
            signing_keys: Private keys, among them one of the new and one of the current version.
            new_authorized_keys: The keys that may sign the next version, by default those of ``before``.
            mine: The keys that the caller knows, by default ``signing_keys``.
            without: Authorized keys to remove; ``new_authorized_keys`` are then added to the others.

        Raises:
            RefusedError: ``unknown-keys``: a key would stay that no version signed by the caller has.
        """
        deadline = self._transport.deadline(timeout)
        return self._publisher.propose(
            before, profile, signing_keys, new_authorized_keys, deadline, mine=mine, without=without
        )

    def prepare(
        self,
        label: str,
        profile: Sequence[ProfileKey],
        signing_keys: Sequence[PrivateKey],
        new_authorized_keys: Sequence[PublicKey] | None = None,
        *,
        timeout: float | None = None,
    ) -> Submission:
        """Look ``label`` up, and build and sign a change of it. Nothing is sent; see ``propose``."""
        before = self.lookup(label, profile=False, timeout=timeout)
        return self.propose(before, profile, signing_keys, new_authorized_keys, timeout=timeout).submission

    def send(self, proposed: Proposal, *, wait: float = 10.0, timeout: float | None = None) -> Published:
        """Submit a proposal and confirm it. Raises ``RefusedError`` if another change came first."""
        return self._publisher.send(proposed.submission, wait, self._transport.deadline(timeout))

    def submit(self, submission: Submission, *, wait: float = 0.0, timeout: float | None = None) -> Receipt:
        """Send ``submission``, and the same bytes again while the server is unavailable.

        The server may take ``wait`` seconds to answer with the verdict. Raises ``RefusedError``, whose
        ``reason`` is the verdict, and ``UnavailableError`` if the outcome is unknown: send the same again.
        """
        return self._publisher.submit(submission, wait, self._transport.deadline(timeout))

    def status(self, submission: Submission, *, timeout: float | None = None) -> SubmissionStatus:
        """Ask what became of ``submission``. A decision is proven; ``SubmissionStatus`` says what is not."""
        return self._publisher.status(submission, self._transport.deadline(timeout))

    def submit_many(
        self, submissions: Sequence[Submission], *, wait: float = 0.0, timeout: float | None = None
    ) -> list[Submitted]:
        """Send many submissions in few requests, and return for each what ``submit`` returns or raises."""
        return submit_many(self._publisher, submissions, wait, self._transport.deadline(timeout))

    def confirm(self, submission: Submission, *, timeout: float | None = None) -> Lookup:
        """Wait until ``submission``, or a successor of it, is proven in the map.

        Raises ``RefusedError`` if another change took its version, ``UnavailableError`` while no head has it.
        """
        return self._publisher.confirm(submission, self._transport.deadline(timeout))

    def submit_erasure(self, erasure: Erasure, *, timeout: float | None = None) -> None:
        """Send the signed erasure of one entry's profile. Raises what ``submit`` raises."""
        self._publisher.submit_erasure(erasure, self._transport.deadline(timeout))

    def confirm_erasure(self, label: str, version: Version, *, timeout: float | None = None) -> Lookup:
        """Wait until a lookup proves that the profile of ``version`` was erased. Raises as ``confirm``."""
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
        """Look ``label`` up, build and sign the next version, submit it, and wait until it is proven.

        Args:
            label, profile, signing_keys, new_authorized_keys, timeout: As for ``propose``.
            wait: Seconds that the server may take to answer with the verdict.
            retries: How often to build the change again, on the new state, if another change came first.

        Raises what ``propose``, ``submit`` and ``confirm`` raise.
        """
        deadline = self._transport.deadline(timeout)
        return self._publisher.publish(
            label, profile, signing_keys, new_authorized_keys, deadline, wait=wait, retries=retries
        )
