"""What the handlers answer, before it is written as JSON."""

from __future__ import annotations

from dataclasses import dataclass

from kt_es.formats.entries import Mutation
from kt_es.formats.heads import HeadEvent
from kt_es.formats.proofs import LookupAnswer
from kt_es.formats.ranges import RangeAnswer


@dataclass(frozen=True, slots=True)
class DirectoryInfo:
    """What a client needs to know of the directory. ``configs`` are encoded, the oldest first."""

    origin: str
    directory: str
    label_policy: str
    configs: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to a lookup. ``profile`` is None if absent, erased, missing or not asked for.

    ``consistency`` leads from the size that the client trusts to that of the answer's checkpoint.
    """

    epoch: int
    answer: LookupAnswer
    profile: bytes | None
    consistency: tuple[bytes, ...]

    @property
    def result(self) -> str:
        """``found``, ``absent``, ``erased``, or ``missing`` where an opening is neither known nor erased."""
        if self.answer.mutation is None:
            return "absent"
        if self.answer.opening is not None:
            return "found"
        return "missing" if self.answer.erasure is None else "erased"


@dataclass(frozen=True, slots=True)
class Version:
    """One version in the history of a label: since which epoch, and its opening if it has one."""

    epoch: int
    mutation: Mutation
    opening: bytes | None
    profile: bytes | None


@dataclass(frozen=True, slots=True)
class History:
    """Versions in order; ``more`` says that there are later ones."""

    versions: list[Version]
    more: bool


@dataclass(frozen=True, slots=True)
class Published:
    """The published head of an epoch, and its inclusion in the log of map heads of ``checkpoint``."""

    epoch: int
    event: HeadEvent
    inclusion: tuple[bytes, ...]
    checkpoint: str


@dataclass(frozen=True, slots=True)
class FoundRange:
    """The answer about the epochs ``first`` to ``last``; ``last`` may be below what was asked for."""

    first: int
    last: int
    answer: RangeAnswer
    consistency: tuple[bytes, ...]
