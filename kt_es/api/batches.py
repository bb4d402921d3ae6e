"""Requests and answers about many labels at once, as ``models`` has those of all other operations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final

from kt_es.api.models import (
    LATER,
    MAX_WAIT,
    AtMost,
    Bounds,
    Epoch,
    Evidence,
    Hashes,
    Label,
    MutationRequest,
    ProblemBody,
    Profile,
    ReceiptBody,
    Uint,
    VerdictBody,
)
from kt_es.formats.batches import MAX_BATCH
from kt_es.formats.queue import MAX_EVENT_ITEMS

MAX_SUBMISSIONS: Final = MAX_EVENT_ITEMS
"""Submissions in one request: as many as one event of the queue has."""


@dataclass(frozen=True, slots=True)
class Items:
    """The fewest and the most items of an array in a request."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class LookupsRequest:
    """At most 1000 labels in one epoch, none of them twice. ``since`` is as in a lookup.

    ``profile``: the profiles come along. The answer may then be about fewer labels.
    """

    labels: Annotated[tuple[Label, ...], Items(1, MAX_BATCH)]
    epoch: Epoch | None = None
    since: Uint | None = None
    profile: bool = True


@dataclass(frozen=True, slots=True)
class LookupsBody:
    """About the first ``count`` labels of the request, which may be fewer than were asked for.

    ``profiles`` has one for each of these labels; it is null where the one of a lookup is.
    """

    epoch: int
    count: int
    answer: bytes
    profiles: Annotated[tuple[Profile | None, ...], AtMost(MAX_BATCH)]
    consistency: Hashes


@dataclass(frozen=True, slots=True)
class BatchedMutation:
    """One submission of a batch: the members are those of ``MutationRequest``."""

    label: Label
    mutation: bytes
    opening: bytes
    profile: bytes
    registration: Evidence | None = field(default=None, repr=False, metadata={LATER: True})

    @property
    def alone(self) -> MutationRequest:
        """The same submission as a request of its own."""
        return MutationRequest(
            self.label, self.mutation, self.opening, self.profile, registration=self.registration
        )


@dataclass(frozen=True, slots=True)
class Malformed:
    """In place of a submission that cannot be read. The others of its batch are not affected."""

    problem: str
    field: str | None


@dataclass(frozen=True, slots=True)
class MutationsRequest:
    """1 to 256 submissions. ``wait``: seconds to wait for the verdicts, of all of them together."""

    submissions: Annotated[tuple[BatchedMutation | Malformed, ...], Items(1, MAX_SUBMISSIONS)]
    wait: Annotated[float, Bounds(0, MAX_WAIT)] = 0.0


@dataclass(frozen=True, slots=True)
class OutcomeBody:
    """What became of one submission: exactly one of ``receipt``, ``verdict`` and ``problem`` is there.

    ``receipt`` and ``verdict`` are what the submission alone is answered with. ``problem`` is its problem
    document: after a 503 the outcome of this submission is unknown, and it may be sent again after
    ``retry_after`` seconds.
    """

    receipt: ReceiptBody | None = None
    verdict: VerdictBody | None = None
    problem: ProblemBody | None = None
    retry_after: int | None = None


@dataclass(frozen=True, slots=True)
class MutationsBody:
    """One outcome for each submission, in their order."""

    outcomes: Annotated[tuple[OutcomeBody, ...], AtMost(MAX_SUBMISSIONS)]
