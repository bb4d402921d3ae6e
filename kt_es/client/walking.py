"""Walks through the epochs of an account without a gap, in ranges of at most 256."""

from __future__ import annotations

from collections.abc import Iterator

from kt_es.client.client import Client
from kt_es.client.ranges import EpochEntry, VerifiedRange
from kt_es.errors import VerificationError
from kt_es.formats.ranges import MAX_RANGE


def next_epochs(client: Client, label: str, done: int, last: int) -> VerifiedRange:
    """The epochs after ``done``, up to ``last`` or an earlier one. The epoch ``done`` itself comes first.

    It comes again so that one answer proves both sides of a change: what stood before it, and what it made.
    """
    first = max(done, 1)
    seen = client.range(label, first, min(last, first + MAX_RANGE - 1))
    if seen.last <= done:
        raise VerificationError("answer", f"has no epoch after epoch {done}, though epoch {last} was proven")
    return seen


def every_epoch(client: Client, label: str, first: int, last: int) -> Iterator[EpochEntry]:
    """What stood at ``label`` in each epoch from ``first`` to ``last``."""
    done = first - 1
    while done < last:
        seen = next_epochs(client, label, done, last)
        yield from (one for one in seen.epochs if one.epoch > done)
        done = seen.last
