"""Follows the cosignatures of a directory, for a front end that answers with them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing

import structlog

from kt_es.errors import (
    AccessDeniedError,
    KtError,
    MalformedError,
    UnavailableError,
    UnverifiedRowError,
    VerificationError,
)
from kt_es.eventstore.streams import EventLog
from kt_es.process.outage import Backoff, Outage, keep_trying
from kt_es.process.signals import Worker
from kt_es.server.cosigned import CosignedHeads
from kt_es.server.cosigning import COSIGNED
from projections.follower import stopped_by

_LOG = structlog.get_logger("kt_es.server")


class CosignedFollower:
    """Reads the stream from its beginning, because cosignatures are kept in memory only.

    Nothing is answered before the first end of the stream: an old cosignature would look like the latest.

    An event that does not verify is logged and left out: others may write the stream too. A missing right is
    an outage of this part alone.
    """

    def __init__(
        self,
        connect: Callable[[], EventLog],
        stream: str,
        heads: CosignedHeads,
        failed: Callable[[KtError], None],
    ) -> None:
        self._connect = connect
        self._stream = stream
        self._heads = heads
        self._after = -1
        self.worker = Worker("cosignatures", self._run, failed)

    def committed(self) -> None:
        """Take what waited for an epoch, after its commit. Any thread may call it."""
        for error in self._heads.retry():
            _report(error, None)

    def _run(self, stop: threading.Event) -> None:
        outage, backoff = Outage("cosignatures", _LOG), Backoff()

        def attempt() -> None:
            with closing(self._connect()) as log:
                end = log.last_revision(self._stream)
                subscription = log.subscribe(self._stream, self._after)
                outage.over()
                self._reached(end)
                with stopped_by(stop, subscription):
                    for event in subscription:
                        if event.type == COSIGNED:
                            self._follow(event.data, event.revision)
                        self._after = event.revision
                        self._reached(end)
                        backoff.reset()

        passing = (UnavailableError, AccessDeniedError, UnverifiedRowError)
        keep_trying(attempt, stop, outage, backoff, passing=passing)

    def _reached(self, end: int) -> None:
        if self._after >= end:
            self._heads.is_complete = True

    def _follow(self, data: bytes, revision: int) -> None:
        try:
            self._heads.follow(data)
        except (MalformedError, VerificationError) as error:
            _report(error, revision)


def _report(error: KtError, revision: int | None) -> None:
    _LOG.error("a cosigned checkpoint is not answered", revision=revision, problem=str(error))
