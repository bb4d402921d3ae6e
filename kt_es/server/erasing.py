"""Erasures that owners and the operator submit: refused early by the signer's own rules, else queued.

The openings themselves are taken out of their streams once an epoch has accepted the erasure: ``sweeping``.
"""

from __future__ import annotations

from kt_es.api.models import ErasureBody
from kt_es.api.operations import ProblemReason
from kt_es.epochs import Current, Epoch, decide
from kt_es.errors import MalformedError, RefusedError
from kt_es.eventstore.streams import StreamNames, content_event
from kt_es.formats.erasures import MAX_ERASURE, Erasure
from kt_es.formats.queue import ERASURE
from kt_es.formats.records import Verdict
from kt_es.ledger.state import Committed
from kt_es.server.availability import Appender, LogWatch
from kt_es.server.backlog import Backlog
from kt_es.server.handlers import DirectoryReader


class Erasures:
    """Takes erasures for one directory. Safe for threads; ``submit`` blocks while the log works."""

    def __init__(
        self,
        directory: DirectoryReader,
        names: StreamNames,
        *,
        watch: LogWatch,
        backlog: Backlog,
        appender: Appender,
    ) -> None:
        self._directory = directory
        self._names = names
        self._watch = watch
        self._backlog = backlog
        self._appender = appender

    def submit(self, data: bytes) -> ErasureBody:
        """Check and queue one erasure.

        Raises ``RefusedError`` with the reason, and ``UnavailableError`` while the log is away or too much
        waits in the queue: the same bytes may be submitted again.
        """
        committed = self._directory.committed()
        erasure = self._checked(committed, data)
        index, entry_hash = erasure.index, erasure.entry_hash
        erasures = self._directory.ledger.tables.erasures.up_to(committed.epoch, index, entry_hash)
        if (erased := next(erasures, None)) is not None:
            return ErasureBody(entry_hash.hex(), None, erased.epoch)
        self._directory.check_submissions()
        self._watch.check()
        self._backlog.check()
        event = content_event(self._names.queue, ERASURE, data)
        self._appender.append(self._names.queue, event, self._appender.deadline())
        self._backlog.added()
        return ErasureBody(entry_hash.hex(), str(event.id), None)

    def _checked(self, committed: Committed, data: bytes) -> Erasure:
        if len(data) > MAX_ERASURE:
            raise RefusedError(ProblemReason.OVERSIZE, f"must have at most {MAX_ERASURE} bytes", "erasure")
        try:
            erasure = Erasure.decode(data)
        except MalformedError as error:
            raise RefusedError(ProblemReason.MALFORMED, str(error), "erasure") from None
        held = self._directory.current(committed, erasure.index)
        before = None if held is None else Current(held[0].entry, held[0].entry_hash)
        verdict = decide(Epoch.after(committed.standing), erasure, before)
        if verdict is not Verdict.ERASED:
            raise RefusedError(
                verdict.label,
                "must be signed by a key of the entry that stands there now, or by the signer key in force",
                "erasure",
            )
        # The signer accepts any hash. One that no entry has would only be a line in the log for ever.
        if all(
            mutation.entry_hash != erasure.entry_hash
            for _, mutation in self._directory.ledger.history(committed, erasure.index)
        ):
            raise RefusedError(ProblemReason.MALFORMED, "it names no entry of its index", "erasure")
        return erasure
