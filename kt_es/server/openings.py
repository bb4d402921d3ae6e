"""Openings for answers: from the projection, or from their stream where the projection is behind."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError

import structlog

from kt_es.crypto.commitments import opens
from kt_es.eventstore.streams import StreamNames
from kt_es.formats.entries import Mutation
from kt_es.formats.profiles import Opening
from kt_es.ledger.openings import Missing, OpeningTable, read_opening
from kt_es.server.availability import LogWatch
from kt_es.server.late import RequestLog
from kt_es.server.problems import NotNowError

DEADLINE = 2.0

_LOG = structlog.get_logger("kt_es.server")


class OpeningReader:
    """Finds the openings of commitments. It never returns a wrong opening."""

    def __init__(self, openings: OpeningTable, log: RequestLog, names: StreamNames, watch: LogWatch) -> None:
        self._openings = openings
        self._log = log
        self._names = names
        self._watch = watch
        # Few threads, because a log that hangs may hold each longer than the deadline.
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="openings")

    def find(self, label: str, mutation: Mutation) -> Opening | None:
        """The opening of the entry of ``mutation``; None if its stream has none, or says that it is erased.

        None proves nothing. The log of mutations proves whether an opening was erased.

        Raises:
            UnavailableError: only the event log has the answer, and it cannot be reached.
        """
        entry = mutation.entry

        def is_true(opening: Opening) -> bool:
            return opens(entry.commitment, opening.opening, label, entry.version, opening.profile)

        known = self._openings.get(entry.index, mutation.entry_hash)
        if isinstance(known, Opening):
            if is_true(known):
                return known
            _LOG.warning("an opening does not open its entry", stream=self._names.openings(entry.index))
        elif known is Missing.ERASED:
            return None
        self._watch.check()
        stream = self._names.openings(entry.index)
        reading: Future[Opening | Missing] = self._pool.submit(
            lambda: read_opening(self._log.read(stream), mutation.entry_hash, is_true)
        )
        try:
            found = reading.result(DEADLINE)
        except FutureTimeoutError:
            reading.cancel()
            raise NotNowError("the event log does not answer; try again later") from None
        return found if isinstance(found, Opening) else None

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
