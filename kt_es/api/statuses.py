"""Requests and answers about what became of a submitted mutation; see ``kt_es.api.models``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, TypeAlias

from kt_es.api.models import AtMost, Hashes, RecordBody, Text, Uint
from kt_es.formats.statuses import MAX_STATUS_ANSWER

HASH_CHARACTERS: Final = 64

Hash: TypeAlias = Annotated[
    str, Text(HASH_CHARACTERS, "b8f9c2dd8f7f2fd1f1b1a5d4b6ad3c5f0a1e8a37f2b9c6d4e1f00718293a4b5c")
]


class SubmissionState(StrEnum):
    """What a front end knows of a mutation."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    DECIDED = "decided"


@dataclass(frozen=True, slots=True)
class StatusRequest:
    """``mutation`` is the id that receipts and verdicts name, the entry hash.

    ``item`` is the SHA-256 of the mutation with its signatures: the answer is about these bytes alone.
    Without it the answer is about the entry under any signatures. Both are hexadecimal. ``since`` is as in a
    lookup.
    """

    mutation: Hash
    item: Hash | None = None
    since: Uint | None = None


@dataclass(frozen=True, slots=True)
class StatusBody:
    """``state`` is ``unknown``, ``pending`` or ``decided``.

    ``pending``: the mutation is in the queue, and no epoch up to ``epoch`` has decided it. ``unknown``: it is
    neither decided up to ``epoch`` nor in the queue. Nothing proves these two states. A decision before the
    record number ``complete_from`` of the log of mutations may be unknown to this front end.

    ``decided``: ``epoch`` has decided it, ``complete_from`` is 0, and ``answer`` proves ``verdict`` and
    ``record``.
    """

    mutation: str
    state: str
    epoch: int
    complete_from: int
    verdict: str | None
    record: RecordBody | None
    answer: Annotated[bytes, AtMost(MAX_STATUS_ANSWER)] | None
    consistency: Hashes
