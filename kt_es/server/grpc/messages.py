"""Requests and answers of ``kt.v1`` as models of ``kt_es.api``, and back.

The bounds of a request are those that the models declare, so both interfaces take the same values.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from kt_es._proto import kt_v1
from kt_es.api.batches import BatchedMutation, Items, LookupsBody, Malformed
from kt_es.api.cosigned import CosignaturesBody, CosignedBody
from kt_es.api.models import (
    MAX_WAIT,
    NAME,
    Bounds,
    ConsistencyBody,
    DirectoryBody,
    ErasureBody,
    HeadBody,
    HistoryBody,
    LookupBody,
    MutationRequest,
    RangeBody,
    ReceiptBody,
    RecordBody,
    Text,
    VerdictBody,
)
from kt_es.api.operations import ProblemReason
from kt_es.api.statuses import StatusBody, SubmissionState
from kt_es.errors import RefusedError
from kt_es.server.responses import Problem, without_streams

_T = TypeVar("_T")
_LOGS = {
    kt_v1.Log.values_by_name["LOG_HEADS"].number: "heads",
    kt_v1.Log.values_by_name["LOG_MUTATIONS"].number: "mutations",
}
_NANOSECONDS = 10**9


# --- Requests ---


def request_of(kind: type[_T], message: Any, **more: object) -> _T:
    """Return ``message`` as a request of type ``kind``. ``more`` are members that are no fields of it.

    Raises ``RefusedError``, which names the first field that is out of its bounds.
    """
    given = dict(more)
    for name, field in _fields(kind).items():  # type: ignore[arg-type]
        described = message.DESCRIPTOR.fields_by_name.get(field)
        # A field that is not there has the default of the model. Fields that must be there are never absent.
        if described is None or (described.has_presence and not message.HasField(field)):
            continue
        value = getattr(message, field)
        value = given.setdefault(name, tuple(value) if described.label == described.LABEL_REPEATED else value)
        for mark in _marks(kind).get(name, ()):  # type: ignore[arg-type]
            _check(field, value, mark)
    return kind(**given)


def log_request(kind: type[_T], message: Any) -> _T:
    """Return a message that names a log as a request of type ``kind``. Raises ``RefusedError``."""
    log = _LOGS.get(message.log)
    if log is None:
        raise RefusedError(ProblemReason.MALFORMED, "must be LOG_HEADS or LOG_MUTATIONS", "log")
    return request_of(kind, message, log=log)


def submission(message: Any, wait: float = 0.0) -> MutationRequest:
    """Return a ``SubmitRequest`` that waits ``wait`` seconds for the verdict. Raises ``RefusedError``."""
    return request_of(MutationRequest, message, wait=wait)


def submissions(message: Any) -> tuple[BatchedMutation | Malformed, ...]:
    """Return the submissions of a ``SubmitManyRequest``. One out of its bounds does not affect the others."""
    return tuple(_batched(one) for one in message.submissions)


def _batched(message: Any) -> BatchedMutation | Malformed:
    try:
        return request_of(BatchedMutation, message)
    except RefusedError as error:
        return Malformed(error.problem, error.field)


def wait_of(message: Any) -> float:
    """Return the seconds for which a request waits, if it says nothing the most. Raises ``RefusedError``."""
    if not message.HasField("wait"):
        return MAX_WAIT
    seconds = float(message.wait.seconds + message.wait.nanos / _NANOSECONDS)
    _check("wait", seconds, Bounds(0, MAX_WAIT))
    return seconds


@functools.cache
def _fields(kind: Any) -> Mapping[str, str]:
    """Return the members of ``kind`` and the names of their fields."""
    return {member.name: str(member.metadata.get(NAME, member.name)) for member in dataclasses.fields(kind)}


@functools.cache
def _marks(kind: Any) -> Mapping[str, tuple[object, ...]]:
    """Return what bounds the members of ``kind``; a member may be None besides."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: tuple(_marks_in(hint)) for name, hint in hints.items()}


def _marks_in(hint: Any) -> list[object]:
    if get_origin(hint) is Annotated:
        base, *marks = get_args(hint)
        return [*marks, *_marks_in(base)]
    return [mark for argument in get_args(hint) for mark in _marks_in(argument)]


def _check(field: str, value: Any, mark: object) -> None:
    match mark:
        case Bounds(low, high) if not low <= value <= high:
            raise RefusedError(ProblemReason.MALFORMED, f"must be from {low} to {high}", field)
        case Items(low, high) if not low <= len(value) <= high:
            raise RefusedError(ProblemReason.MALFORMED, f"must have from {low} to {high} items", field)
        case Text() if isinstance(value, tuple):
            for item in value:
                _check(field, item, mark)
        case Text(max_length) if len(value) > max_length:
            raise RefusedError(ProblemReason.MALFORMED, f"must have at most {max_length} characters", field)


# --- Answers, encoded ---


def directory_answer(body: DirectoryBody) -> bytes:
    return _encoded(
        kt_v1.DescribeResponse(
            origin=body.origin,
            directory=body.directory,
            label_policy=body.label_policy,
            configs=body.configs,
        )
    )


def lookup_answer(body: LookupBody) -> bytes:
    return _encoded(
        kt_v1.LookupResponse(
            epoch=body.epoch, answer=body.answer, profile=body.profile, consistency=body.consistency
        )
    )


def batch_answer(body: LookupsBody) -> bytes:
    return _encoded(
        kt_v1.LookupManyResponse(
            epoch=body.epoch,
            count=body.count,
            answer=body.answer,
            profiles=[kt_v1.LookedUpProfile(profile=profile) for profile in body.profiles],
            consistency=body.consistency,
        )
    )


def history_answer(body: HistoryBody) -> bytes:
    versions = [
        kt_v1.Version(
            version=item.version,
            epoch=item.epoch,
            mutation=item.mutation,
            opening=item.opening,
            profile=item.profile,
        )
        for item in body.versions
    ]
    return _encoded(kt_v1.HistoryResponse(versions=versions, more=body.more))


def range_answer(body: RangeBody) -> bytes:
    return _encoded(
        kt_v1.RangeResponse(
            first=body.first, last=body.last, answer=body.answer, consistency=body.consistency
        )
    )


def head(body: HeadBody) -> Any:
    """Return a head as a message, which stands in several answers."""
    return kt_v1.Head(
        epoch=body.epoch,
        smh=body.smh,
        heads_checkpoint=body.heads_checkpoint,
        mutations_checkpoint=body.mutations_checkpoint,
        inclusion=body.inclusion,
        latest_checkpoint=body.latest_checkpoint,
    )


def head_answer(body: HeadBody) -> bytes:
    return _encoded(head(body))


def watch_answer(body: HeadBody, consistency: tuple[bytes, ...]) -> bytes:
    return _encoded(kt_v1.WatchHeadsResponse(head=head(body), consistency=consistency))


def consistency_answer(body: ConsistencyBody) -> bytes:
    return _encoded(kt_v1.ConsistencyResponse(hashes=body.hashes))


def cosigned_answer(body: CosignedBody) -> bytes:
    return _encoded(kt_v1.CosignedResponse(heads=body.heads, mutations=body.mutations))


def cosign_answer(body: CosignaturesBody) -> bytes:
    return _encoded(kt_v1.CosignResponse(new=body.new))


def tile_answer(hashes: Sequence[bytes]) -> bytes:
    return _encoded(kt_v1.TileResponse(hashes=hashes))


def entries_answer(entries: Sequence[bytes]) -> bytes:
    return _encoded(kt_v1.EntriesResponse(entries=entries))


def submit_answer(body: ReceiptBody | VerdictBody) -> bytes:
    return _encoded(kt_v1.SubmitResponse(**_taken(body)))


def outcomes_answer(outcomes: Sequence[ReceiptBody | VerdictBody | Problem]) -> bytes:
    shown = [
        kt_v1.SubmitOutcome(**({"problem": _problem(one)} if isinstance(one, Problem) else _taken(one)))
        for one in outcomes
    ]
    return _encoded(kt_v1.SubmitManyResponse(outcomes=shown))


def _taken(body: ReceiptBody | VerdictBody) -> dict[str, Any]:
    """Return the field of an outcome that is no problem."""
    if isinstance(body, ReceiptBody):
        return {
            "queued": kt_v1.Receipt(mutation=body.mutation, event=body.event, registration=body.registration)
        }
    return {"decided": verdict(body.mutation, body.verdict, body.epoch, body.record, body.registration)}


def _problem(problem: Problem) -> Any:
    shown = kt_v1.Problem(reason=problem.reason, detail=without_streams(problem.detail), field=problem.field)
    if problem.wait is not None:
        shown.retry_after.seconds = problem.wait
    if "verdict" in problem.more:
        shown.verdict.CopyFrom(failed_verdict(problem.more))
    return shown


def failed_verdict(members: Mapping[str, Any]) -> Any:
    """Return the verdict in the members of a problem document."""
    record = members["record"]
    where = None if record is None else RecordBody(**record)
    return verdict(members["mutation"], members["verdict"], members["epoch"], where)


def verdict(
    mutation: str, label: str, epoch: int, record: RecordBody | None, registration: str | None = None
) -> Any:
    """Return a verdict as a message, which stands in an answer or in a failure."""
    where = None
    if record is not None:
        where = kt_v1.Record(
            sequence=record.sequence, queue_revision=record.queue_revision, position=record.position
        )
    return kt_v1.Verdict(
        mutation=mutation, verdict=label, epoch=epoch, record=where, registration=registration
    )


def status_answer(body: StatusBody) -> bytes:
    if body.state == SubmissionState.DECIDED:
        found = verdict(body.mutation, body.verdict or "", body.epoch, body.record)
        state = {"decided": kt_v1.Decided(verdict=found, answer=body.answer)}
    else:
        state = {body.state: kt_v1.Undecided(epoch=body.epoch, complete_from=body.complete_from)}
    return _encoded(kt_v1.StatusResponse(mutation=body.mutation, consistency=body.consistency, **state))


def erasure_answer(body: ErasureBody) -> bytes:
    return _encoded(kt_v1.EraseResponse(entry=body.entry, event=body.event, epoch=body.epoch))


def _encoded(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data
