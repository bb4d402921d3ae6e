"""Requests and answers of batch lookups, as ``models`` has those of all other operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from kt_es.api.models import AtMost, Epoch, Hashes, Label, Profile, Uint
from kt_es.formats.batches import MAX_BATCH


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
