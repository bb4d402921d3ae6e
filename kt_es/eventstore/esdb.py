"""``EventLog`` over EventStoreDB's gRPC protocol. ``connecting`` makes one from a connection string.

A call to a server that hangs would never return, so each call has the deadline ``DEADLINE``. The client
library repeats a failed call once, so a caller may wait about twice as long. Long reads consist of pages, and
each page has its own deadline. HTTP/2 keepalive ends streaming calls whose peer is frozen.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from kt_es.errors import KtError, WrongRevisionError
from kt_es.eventstore import driver
from kt_es.eventstore.appending import Appending, driver_event, version_of
from kt_es.eventstore.esdb_client import PAGE, PAGE_BYTES, EsdbClient
from kt_es.eventstore.rights import READ, READ_METADATA, TRUNCATE_BEFORE, WRITE, WRITE_METADATA, taken_of
from kt_es.eventstore.streams import Append, Event, Metadata, NewEvent, Subscription, make_append
from kt_es.eventstore.subscriptions import EsdbGroup, EsdbSubscription, calling, read_event

DEADLINE = 3.0
OPENING_DEADLINE = 10.0
OPENING_LOOK = 1.0  # seconds between two checks whether a member that does not answer still leads
FIRST_PAGE = 8
ALL = "$all"

_T = TypeVar("_T")
_S = TypeVar("_S", bound="EsdbSubscription | None")


class EsdbLog:
    """``EventLog`` (see ``streams``) over one client. Several threads may use it."""

    def __init__(self, client: EsdbClient) -> None:
        self._client = client
        self._is_plain = not driver.speaks_tls(client.connection_spec)
        # Number of events that have about PAGE_BYTES. The server sends all requested events, also those that
        # are cut off, so larger requests would be wasted.
        self._page_events = FIRST_PAGE
        self._subscriptions: weakref.WeakSet[EsdbSubscription] = weakref.WeakSet()
        self._appending = Appending(
            client, lambda append: make_append(self, append), DEADLINE, is_plain=self._is_plain
        )

    def _opened(self, doing: str, call: Callable[[], _S], stream: str) -> _S:
        """Open a subscription, and close the client if the server does not confirm the subscription in time.

        The client library waits for the confirmation without a deadline. A deadline of the call would apply
        to the whole subscription. So the only way to end the wait is to close the client. A closed client
        cannot be used again, and its remaining attempts fail at once.
        """
        confirmed = threading.Event()
        watcher = threading.Thread(target=self._close_if_late, args=(confirmed,), daemon=True)
        watcher.start()
        try:
            opened = self._calling(doing, call, READ, stream)
        finally:
            confirmed.set()
        if opened is not None:
            self._subscriptions.add(opened)
        return opened

    def _close_if_late(self, confirmed: threading.Event) -> None:
        """Close the client if no confirmation comes in time, or earlier if its member no longer leads.

        A member that has resigned accepts the call, but does not answer it.
        """
        deadline = time.monotonic() + OPENING_DEADLINE
        while not confirmed.wait(min(OPENING_LOOK, max(0.0, deadline - time.monotonic()))):
            if time.monotonic() >= deadline or not self._client.may_lead():
                self._client.close()
                return

    def _calling(self, doing: str, call: Callable[[], _T], right: str = "", stream: str = "") -> _T:
        return calling(doing, call, right, stream, is_plain=self._is_plain)

    def uses(self, client: EsdbClient) -> bool:
        return self._client is client

    def is_connected_to(self, target: str) -> bool:
        return self._client.connection_target == target

    def end_subscriptions(self) -> None:
        """End every subscription and the call of all appends, from any thread."""
        self._appending.end()
        for subscription in list(self._subscriptions):
            subscription.stop()

    def append(self, stream: str, expected: int, events: Sequence[NewEvent]) -> None:
        new = [driver_event(event) for event in events]
        version = version_of(expected)

        def append() -> None:
            try:
                self._client.append_to_stream(stream, current_version=version, events=new, timeout=DEADLINE)
            except driver.WrongCurrentVersion:
                raise WrongRevisionError(stream, expected) from None

        self._calling(f"append to {stream}", append, WRITE, stream)

    def append_all(self, appends: Sequence[Append]) -> Sequence[KtError | None]:
        return self._appending.exchange(appends)

    def last_event(self, stream: str) -> Event | None:
        def last() -> Event | None:
            try:
                events = self._client.get_stream(stream, backwards=True, limit=1, timeout=DEADLINE)
            except driver.NotFound:
                return None
            return read_event(events[0]) if events else None

        return self._calling(f"read the end of {stream}", last, READ, stream)

    def last_revision(self, stream: str) -> int:
        last = self.last_event(stream)
        return -1 if last is None else last.revision

    def read(self, stream: str, start: int = 0, limit: int | None = None) -> Iterator[Event]:
        while limit is None or limit > 0:
            count = self._page_events if limit is None else min(self._page_events, limit)
            page, is_last = self._page(stream, start, count)
            limit = None if limit is None else limit - len(page)
            start = page[-1].revision + 1 if page else start
            yield from page
            # Release the page before the next one is read.
            del page
            if is_last:
                return

    def _page(self, stream: str, start: int, count: int) -> tuple[list[Event], bool]:
        """Return the events of a page, and whether the page is the last one of the stream."""

        def page() -> tuple[list[Event], bool]:
            try:
                found = self._client.get_page(stream, start, count)
            except driver.NotFound:
                return [], True
            is_cut = sum(len(event.data) for event in found) >= PAGE_BYTES
            self._page_events = len(found) if is_cut else min(2 * self._page_events, PAGE)
            return [read_event(event) for event in found], len(found) < count and not is_cut

        return self._calling(f"read {stream}", page, READ, stream)

    def subscribe(self, stream: str, after: int = -1) -> Subscription:
        position = None if after < 0 else after
        return self._opened(
            f"subscribe to {stream}",
            lambda: EsdbSubscription(
                self._client.subscribe_to_stream(stream, stream_position=position), stream
            ),
            stream,
        )

    def subscribe_prefix(self, prefix: str, after: int | None = None) -> Subscription:
        return self._opened(
            f"subscribe to {prefix}*",
            lambda: EsdbSubscription(
                self._client.subscribe_to_all(
                    commit_position=after,
                    filter_include=_beginning_with(prefix),
                    filter_by_stream_name=True,
                    include_checkpoints=True,
                ),
                ALL,
            ),
            ALL,
        )

    def _create_group(self, stream: str, group: str) -> None:
        def create() -> None:
            try:
                self._client.create_subscription_to_stream(
                    group,
                    stream,
                    consumer_strategy="DispatchToSingle",
                    max_subscriber_count=1,
                    # The signer acknowledges events at the end of an epoch. Until then the server must not
                    # redeliver or park any of them.
                    message_timeout=3600,
                    max_retry_count=2**31 - 1,
                    min_checkpoint_count=1,
                    max_checkpoint_count=500,
                    checkpoint_after=1.0,
                    live_buffer_size=2000,
                    history_buffer_size=2000,
                    read_batch_size=200,
                    timeout=DEADLINE,
                )
            except driver.AlreadyExists:
                return

        self._calling(f"create the persistent subscription {group} of {stream}", create)

    def join_group(self, stream: str, group: str) -> EsdbGroup | None:
        def join() -> EsdbGroup | None:
            try:
                return EsdbGroup(
                    self._client.read_subscription_to_stream(
                        group, stream, event_buffer_size=2000, max_ack_batch_size=200, max_ack_delay=0.05
                    ),
                    stream,
                )
            except driver.MaximumSubscriptionsReached:
                return None
            except driver.NotFound:
                # Joining is tried first, because creating a group needs more rights.
                self._create_group(stream, group)
                return join()

        return self._opened(f"join the persistent subscription {group} of {stream}", join, stream)

    def truncate(self, stream: str, before: int) -> None:
        def truncate() -> None:
            held = self._metadata(stream)
            there = held.values.get(TRUNCATE_BEFORE, 0)
            if isinstance(there, int) and there < before:
                self._set_metadata(stream, {**held.values, TRUNCATE_BEFORE: before}, held.revision)

        self._calling(f"truncate {stream}", truncate, WRITE_METADATA, stream)

    def metadata(self, stream: str) -> Metadata:
        return self._calling(
            f"read the metadata of {stream}", lambda: self._metadata(stream), READ_METADATA, stream
        )

    def _metadata(self, stream: str) -> Metadata:
        try:
            events = self._client.get_stream(f"$${stream}", backwards=True, limit=1, timeout=DEADLINE)
        except driver.NotFound:
            return Metadata()
        if not events:
            return Metadata()
        last = events[0]
        return Metadata(taken_of(last.content_type, last.data), last.stream_position)

    def set_metadata(self, stream: str, values: Mapping[str, object], expected: int) -> None:
        def put() -> None:
            try:
                self._set_metadata(stream, values, expected)
            except driver.WrongCurrentVersion:
                raise WrongRevisionError(f"$${stream}", expected) from None

        self._calling(f"set the metadata of {stream}", put, WRITE_METADATA, stream)

    def _set_metadata(self, stream: str, values: Mapping[str, object], expected: int) -> None:
        self._client.set_stream_metadata(
            stream, metadata=dict(values), current_version=version_of(expected), timeout=DEADLINE
        )

    def stream_names(self, prefix: str) -> Iterator[str]:
        """Yield the names of all streams that begin with ``prefix``, also of deleted ones, each name once.

        This reads all events of these streams, so it is slow.
        """
        doing = f"read {prefix}*"
        seen: set[str] = set()
        events = self._calling(
            doing,
            lambda: self._client.read_all(filter_include=_beginning_with(prefix), filter_by_stream_name=True),
            READ,
            ALL,
        )
        try:
            while (event := self._calling(doing, lambda: next(events, None), READ, ALL)) is not None:
                if event.stream_name not in seen:
                    seen.add(event.stream_name)
                    yield event.stream_name
        finally:
            events.stop()

    def close(self) -> None:
        self._client.close()


def _beginning_with(prefix: str) -> tuple[str]:
    """Return the filter for streams: a regular expression, in which only "." of a name is special."""
    return (prefix.replace(".", "\\.") + ".*",)
