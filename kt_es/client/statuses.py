"""What became of a submitted mutation: asked, and verified as far as anything proves it.

A decision is proven by the record of the mutation in the log of mutations. The client makes the record of the
bytes that it kept, so no server can say another verdict. Nothing proves that a mutation is still undecided or
that its last refusal was the last word. So in these cases the map is looked up: if it has the entry, the
server has lied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from kt_es.api.codec import decode_model
from kt_es.api.models import RecordBody
from kt_es.api.operations import STATUS
from kt_es.api.statuses import StatusBody, StatusRequest, SubmissionState
from kt_es.client.changes import Submission
from kt_es.client.heads import decode_head, verify_consistency, verify_order
from kt_es.client.session import Session
from kt_es.client.trust import Lookup
from kt_es.client.trusted import Trusted
from kt_es.crypto.hashes import log_leaf_hash, sha256
from kt_es.errors import MalformedError, UnavailableError, VerificationError
from kt_es.formats.entries import Mutation
from kt_es.formats.heads import Checkpoint, MapHead
from kt_es.formats.queue import Verdict
from kt_es.formats.statuses import StatusAnswer
from kt_es.merkle.verify import log_root_from_inclusion, log_root_from_range

_ATTEMPTS = 3
"""How often a server is asked while later epochs come."""
_TOOK_EFFECT = (Verdict.ACCEPTED, Verdict.DUPLICATE, Verdict.REPLAY)


@dataclass(frozen=True, slots=True)
class SubmissionStatus:
    """What became of a submission.

    Attributes:
        mutation: Its id, as receipts name it.
        state: Whether it is decided. Only a decision is proven.
        epoch: The epoch that decided it. If it is not decided: the last epoch that the server has looked at.
        verdict: The name of the verdict, None if it is not decided.
        sequence: The record in the log of mutations that proves the verdict. None if it is not decided, or if
            the server does not know old records and the map of ``epoch`` proves that it was accepted.
        complete_from: For a submission that is unknown: decisions before this record are unknown there.
    """

    mutation: str
    state: SubmissionState
    epoch: int
    verdict: str | None = None
    sequence: int | None = None
    complete_from: int = 0

    @property
    def took_effect(self) -> bool:
        """Whether the entry was accepted: by this decision, or before it (``duplicate``, ``replay``)."""
        return self.verdict in {verdict.label for verdict in _TOOK_EFFECT}


def submission_status(
    session: Session, submission: Submission, stands: Callable[[Lookup], bool], deadline: float
) -> SubmissionStatus:
    """Ask what became of ``submission``. ``stands`` says whether a lookup proves it or a later version."""

    def ask(trusted: Trusted) -> tuple[SubmissionStatus, int]:
        mutation = submission.mutation
        request = StatusRequest(
            mutation.entry_hash.hex(), sha256(mutation.encode()).hex(), trusted.size or None
        )
        reply = decode_model(StatusBody, session.transport.post(STATUS.path, request, deadline).body)
        after, status, seen = verify_status(trusted, mutation, reply)
        session.directory.advance(trusted, after, deadline)
        return status, seen

    for _ in range(_ATTEMPTS):
        status, seen = session.ask(ask, deadline)
        if status.took_effect:
            return status
        # Whoever says that nothing is decided has to show a fresh head without the entry.
        epoch = seen if status.state is SubmissionState.DECIDED else None
        lookup = session.lookup(submission.label, epoch, False, deadline)
        if not stands(lookup):
            return status
        if lookup.epoch <= seen:
            return _found(status, seen)
        # A later epoch has accepted it.
    raise UnavailableError("the server does not know yet which record accepted the entry; ask again")


def _found(status: SubmissionStatus, epoch: int) -> SubmissionStatus:
    """Return the status of a submission whose entry the map of ``epoch`` has, though the server denies it.

    Raises ``VerificationError`` unless the server may have been honest.
    """
    if status.state is SubmissionState.UNKNOWN and status.complete_from > 0:
        return SubmissionStatus(status.mutation, SubmissionState.DECIDED, epoch, Verdict.ACCEPTED.label)
    said = status.verdict or status.state.value
    raise VerificationError("record", f"the server says {said}, and the map of epoch {epoch} has the entry")


def verify_status(
    trusted: Trusted, mutation: Mutation, reply: StatusBody
) -> tuple[Trusted, SubmissionStatus, int]:
    """Verify an answer about ``mutation``, as far as anything proves it. Pure.

    Returns:
        The new state, the status, and the last epoch that the server has looked at.

    Raises ``VerificationError`` or ``EquivocationError``.
    """
    if reply.mutation != mutation.entry_hash.hex():
        raise VerificationError("answer", "is about another mutation")
    if reply.state == SubmissionState.DECIDED:
        return _verify_decision(trusted, mutation, reply)
    try:
        state = SubmissionState(reply.state)
    except ValueError:
        raise VerificationError("answer", "has a state that does not exist") from None
    if any(part is not None for part in (reply.answer, reply.verdict, reply.record)):
        raise VerificationError("answer", f"has a decision, and says {state.value}")
    if reply.epoch < max(1, trusted.size):
        raise VerificationError(
            "rollback", f"the server has {reply.epoch} epochs, though {trusted.size} have been trusted before"
        )
    status = SubmissionStatus(reply.mutation, state, reply.epoch, complete_from=reply.complete_from)
    return trusted, status, reply.epoch


def _verify_decision(
    trusted: Trusted, mutation: Mutation, reply: StatusBody
) -> tuple[Trusted, SubmissionStatus, int]:
    try:
        answer = StatusAnswer.decode(reply.answer or b"")
    except MalformedError as error:
        raise VerificationError("answer", str(error)) from None
    text = answer.heads_checkpoint
    checkpoint = trusted.open(text, trusted.in_force)
    verify_consistency(trusted, text, checkpoint, reply.consistency)
    heads = _verify_heads(trusted, answer, checkpoint)
    head = heads[-1]
    _verify_record(mutation, answer, heads)
    where = RecordBody(answer.sequence, answer.revision, answer.position)
    if (reply.epoch, reply.verdict, reply.record) != (head.epoch, answer.verdict.label, where):
        raise VerificationError(
            "record", f"says {answer.verdict.label} in epoch {head.epoch}, and the server says otherwise"
        )
    after = replace(
        trusted,
        in_force=max(trusted.in_force, trusted.signed_at(text)),
        checkpoint=text,
        smh=answer.smhs[-1] if head.epoch == checkpoint.size else trusted.smh,
    )
    status = SubmissionStatus(
        reply.mutation, SubmissionState.DECIDED, head.epoch, answer.verdict.label, answer.sequence
    )
    return after, status, checkpoint.size


def _verify_heads(trusted: Trusted, answer: StatusAnswer, checkpoint: Checkpoint) -> Sequence[MapHead]:
    """Steps "config" and "map head": return the deciding head, after the one before it if there is one."""
    signed = [decode_head(smh) for smh in answer.smhs]
    epoch = signed[-1].head.epoch
    first = max(1, epoch - 1)
    if [smh.head.epoch for smh in signed] != list(range(first, epoch + 1)):
        raise VerificationError("map head", f"the heads are not those before and of epoch {epoch}")
    for smh in signed:
        config = trusted.configs[trusted.position(smh.head.config_hash)].config
        smh.verify(trusted.origin, config.signer_key)
    leaves = [log_leaf_hash(smh) for smh in answer.smhs]
    try:
        root = log_root_from_range(first - 1, checkpoint.size, leaves, answer.heads_proof)
    except (MalformedError, VerificationError) as error:
        raise VerificationError("map head", error.problem) from None
    if root != checkpoint.root:
        raise VerificationError("map head", f"the one of epoch {epoch} is not there in the log of map heads")
    before = trusted
    for smh, text in zip(signed, answer.smhs, strict=True):
        verify_order(trusted, text, smh.head)
        verify_order(before, text, smh.head)
        before = replace(trusted, smh=text)
    position = trusted.position(signed[-1].head.config_hash)
    if epoch == checkpoint.size and position < trusted.in_force:
        raise VerificationError("config", "the latest head names a config that has been replaced since")
    return [smh.head for smh in signed]


def _verify_record(mutation: Mutation, answer: StatusAnswer, heads: Sequence[MapHead]) -> None:
    """Step "record": the record of ``mutation`` stands in the log of mutations, in the last of ``heads``."""
    head = heads[-1]
    begun = heads[0].log_size if len(heads) > 1 else 0
    if not begun <= answer.sequence < head.log_size:
        raise VerificationError("record", f"number {answer.sequence} is not one of epoch {head.epoch}")
    leaf = log_leaf_hash(answer.record(mutation.encode()).encode())
    try:
        root = log_root_from_inclusion(answer.sequence, head.log_size, leaf, answer.inclusion)
    except (MalformedError, VerificationError) as error:
        raise VerificationError("record", error.problem) from None
    if root != head.log_root:
        raise VerificationError(
            "record",
            f"the log of mutations of epoch {head.epoch} does not say {answer.verdict.label} of it",
        )
