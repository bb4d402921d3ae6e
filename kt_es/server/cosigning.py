"""Cosignatures at a front end: who is known, what is answered, and what monitors hand in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kt_es.api.cosigned import WatcherBody
from kt_es.eventstore.streams import ANY, EventLog, content_event
from kt_es.formats.cosignatures import CosignerKey
from kt_es.server.cosigned import CosignedHeads

COSIGNED: Final = "Cosigned"
"""The type of an event with a cosigned checkpoint."""


@dataclass(frozen=True, slots=True)
class Cosigners:
    """The keys whose cosignatures are answered. Monitors hand theirs in; witnesses are asked.

    ``watchers`` describe the same cosigners for people who compare.
    """

    witnesses: tuple[CosignerKey, ...] = ()
    monitors: tuple[CosignerKey, ...] = ()
    watchers: tuple[WatcherBody, ...] = ()

    @property
    def keys(self) -> tuple[CosignerKey, ...]:
        return tuple(dict.fromkeys((*self.witnesses, *self.monitors)))

    def name_of(self, key: CosignerKey) -> str:
        """Return the name of a cosigner in the operator's policy files; those of keys need not be unique."""
        return next((each.name for each in self.watchers if each.vkey == key.vkey), key.name)


NOBODY: Final = Cosigners()


class Cosigning:
    """The cosignatures of one front end. ``stream`` has those of all of its directory's."""

    def __init__(
        self, heads: CosignedHeads, cosigners: Cosigners, log: Callable[[], EventLog], stream: str
    ) -> None:
        self.heads = heads
        self.watchers = cosigners.watchers
        self._monitors = cosigners.monitors
        self._log = log
        self._stream = stream

    def publish(self, note: str) -> bool:
        """Append the note of a monitor for all front ends. It is durable on return.

        Returns False, and appends nothing, if its cosignatures are no newer than those that are here. So only
        who has the key of a monitor can make the stream grow. Raises what ``CosignedHeads.offer`` raises.
        """
        data = self.heads.offer(note, self._monitors)
        if data is None:
            return False
        self._log().append(self._stream, ANY, [content_event(self._stream, COSIGNED, data)])
        return True
