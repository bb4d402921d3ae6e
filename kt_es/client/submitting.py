"""Submissions in batches: many in few requests, with one outcome for each.

A server without batches is older than this client, and gets the submissions one by one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from kt_es.api.batches import MAX_SUBMISSIONS, BatchedMutation, MutationsRequest
from kt_es.api.codec import Json, shown_problem
from kt_es.api.operations import MAX_MUTATION_REQUEST, MUTATIONS_BATCH
from kt_es.client.changes import Submission
from kt_es.client.publishing import Publisher, Receipt, bounded_wait, receipt_for
from kt_es.client.transport import AGAIN
from kt_es.errors import MalformedError, RefusedError, UnavailableError
from kt_es.process.outage import Backoff

Submitted: TypeAlias = Receipt | RefusedError | UnavailableError
"""What became of one submission. After ``UnavailableError`` it is unknown, and may be sent again."""

NOT_THERE: Final = frozenset({"not-found", "http-404"})
"""Reasons of a server that does not have an operation."""

# Bytes of a submission in JSON besides its members, and of a request besides its submissions.
_AROUND = 256
_LONGEST_PAUSE = 3600


def submit_many(
    publisher: Publisher, submissions: Sequence[Submission], wait: float, deadline: float
) -> list[Submitted]:
    """Send ``submissions`` in as many requests as needed, and return an outcome for each, in their order.

    What is unknown is sent again until ``deadline``. The server may take ``wait`` seconds for each request.
    """
    found: dict[int, _Answer] = {}
    missing = list(range(len(submissions)))
    backoff = Backoff(0.1, 5.0)
    while missing:
        for part in _parts(publisher, submissions, missing):
            wanted = [submissions[at] for at in part]
            found.update(zip(part, _sent(publisher, wanted, wait, deadline), strict=True))
        missing = [at for at in missing if found[at].again is not None]
        pause = max([backoff.pause(), *(found[at].again or 0.0 for at in missing)])
        if time.monotonic() + pause >= deadline:
            break
        if missing:
            time.sleep(pause)
    return [found[at].outcome for at in range(len(submissions))]


@dataclass(frozen=True, slots=True)
class _Answer:
    """An outcome. It may be asked for again after ``again`` seconds, unless that is None."""

    outcome: Submitted
    again: float | None = None


def _parts(
    publisher: Publisher, submissions: Sequence[Submission], chosen: Sequence[int]
) -> Iterator[list[int]]:
    """Divide the submissions at ``chosen`` into requests, as full as the limits of a server allow."""
    part: list[int] = []
    room = MAX_MUTATION_REQUEST - _AROUND
    for at in chosen:
        size = _size(publisher, submissions[at])
        if part and (len(part) == MAX_SUBMISSIONS or size > room):
            yield part
            part, room = [], MAX_MUTATION_REQUEST - _AROUND
        part.append(at)
        room -= size
    if part:
        yield part


def _size(publisher: Publisher, submission: Submission) -> int:
    """Return an upper bound of the bytes of a submission in a request."""
    mutation = submission.mutation
    # Its signatures, keys and CBOR.
    binary = len(mutation.entry_bytes) + 96 * len(mutation.signatures) + len(submission.profile) + 64
    # Characters beyond ASCII are escaped.
    text = 6 * (len(submission.label) + len(publisher.registration_of(submission) or ""))
    return _AROUND + text + binary * 4 // 3


def _sent(
    publisher: Publisher, submissions: Sequence[Submission], wait: float, deadline: float
) -> list[_Answer]:
    """Return the outcomes of one request."""
    batch = tuple(
        BatchedMutation(
            one.label, one.mutation.encode(), one.opening, one.profile, publisher.registration_of(one)
        )
        for one in submissions
    )
    request = MutationsRequest(batch, bounded_wait(wait, deadline))
    try:
        answer = publisher.transport.post(MUTATIONS_BATCH.path, request, deadline)
    except RefusedError as error:
        if error.reason not in NOT_THERE:
            raise
        return [_alone(publisher, one, wait, deadline) for one in submissions]
    except UnavailableError as error:
        # The request was repeated until the deadline, or must not be repeated.
        return [_Answer(error)] * len(submissions)
    outcomes = answer.body.get("outcomes")
    what = f"answer to {MUTATIONS_BATCH.path}"
    if not isinstance(outcomes, list) or len(outcomes) != len(submissions):
        raise MalformedError(what, f"must have {len(submissions)} outcomes")
    return [_outcome(*pair, what) for pair in zip(outcomes, submissions, strict=True)]


def _alone(publisher: Publisher, submission: Submission, wait: float, deadline: float) -> _Answer:
    try:
        return _Answer(publisher.submit(submission, wait, deadline))
    except (RefusedError, UnavailableError) as error:
        return _Answer(error)


def _outcome(outcome: Json, submission: Submission, what: str) -> _Answer:
    members = outcome if isinstance(outcome, Mapping) else {}
    taken = members.get("receipt") or members.get("verdict")
    if isinstance(taken, Mapping):
        return _Answer(receipt_for(submission, taken))
    problem = members.get("problem")
    status = problem.get("status") if isinstance(problem, Mapping) else None
    if not isinstance(problem, Mapping) or type(status) is not int or not 400 <= status < 600:
        raise MalformedError(what, "has an outcome that is none")
    shown = shown_problem(status, problem)
    if status in AGAIN:
        wait = members.get("retry_after")
        again = float(wait) if type(wait) is int and 0 < wait < _LONGEST_PAUSE else 1.0
        return _Answer(UnavailableError(shown.detail, again), again)
    if status >= 500:
        # As for a request of its own: repeating it would only add to the server's trouble.
        return _Answer(UnavailableError(shown.detail))
    return _Answer(RefusedError(shown.reason, shown.detail, shown.field))
