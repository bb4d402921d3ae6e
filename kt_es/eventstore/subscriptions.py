"""Subscriptions of the event log (see ``streams``) over those of the client library."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Protocol
from uuid import UUID

from kt_es.errors import UnavailableError
from kt_es.eventstore import driver
from kt_es.eventstore.rights import READ
from kt_es.eventstore.streams import Event
from kt_es.eventstore.translation import calling


class _Recordings(Protocol):
    """The methods of the library's subscriptions that this module uses."""

    def __next__(self) -> driver.RecordedEvent: ...

    def __iter__(self) -> Iterator[driver.RecordedEvent]: ...

    def stop(self) -> None: ...


class _Acknowledged(_Recordings, Protocol):
    def ack(self, item: UUID) -> None: ...


class EsdbSubscription:
    """``Subscription`` over a subscription of the client library. Errors are translated."""

    def __init__(
        self,
        subscription: _Recordings,
        stream: str,
    ) -> None:
        self._stream = stream
        self._subscription = subscription
        self._stopped = threading.Event()

    def __iter__(self) -> Iterator[Event]:
        while True:
            try:
                recorded = calling(
                    "read a subscription", lambda: next(self._subscription, None), READ, self._stream
                )
            except UnavailableError:
                if self._stopped.is_set():
                    return
                raise
            if recorded is None:
                return
            yield read_event(recorded)

    def stop(self) -> None:
        self._stopped.set()
        self._subscription.stop()


class EsdbGroup(EsdbSubscription):
    """``GroupSubscription`` over a persistent subscription of the client library."""

    def __init__(self, subscription: _Acknowledged, stream: str) -> None:
        super().__init__(subscription, stream)
        self._group = subscription

    def ack(self, event: Event) -> None:
        ack_id = event.ack_id
        if ack_id is not None:
            calling("acknowledge", lambda: self._group.ack(ack_id))


def read_event(recorded: driver.RecordedEvent) -> Event:
    """Convert an event of the client library."""
    return Event(
        recorded.stream_name,
        recorded.stream_position,
        recorded.type,
        recorded.data,
        recorded.id,
        recorded.commit_position,
        recorded.ack_id,
    )
