"""Heads as events of a stream; see ``kt_es.api.models``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from kt_es.api.models import AtMost, Hashes, Uint
from kt_es.formats.heads import MAX_SMH

HEAD_EVENT: Final = "head"
"""The type of an event with a head."""
MAX_MISSED: Final = 1_000
"""Epochs that a stream sends which its reader has missed. Of more than these it sends the latest alone."""
MAX_EVENT_DATA: Final = 32 * 1024
"""Bytes of an event that a client takes. The largest have some 10 KiB."""


@dataclass(frozen=True, slots=True)
class HeadEventsParameters:
    """``since`` is the epoch of the last head that the client has. ``Last-Event-ID`` takes precedence."""

    since: Uint | None = None


@dataclass(frozen=True, slots=True)
class HeadEventBody:
    """The data of an event: a head as it was published, and how its log continues.

    ``inclusion`` proves the SMH in the log of ``latest_checkpoint``. ``consistency`` leads to that log from
    the ``latest_checkpoint`` of the event before; in the first event from ``since``, or it is empty.
    """

    epoch: int
    smh: Annotated[bytes, AtMost(MAX_SMH)]
    heads_checkpoint: str
    mutations_checkpoint: str
    inclusion: Hashes
    latest_checkpoint: str
    consistency: Hashes
