"""The reasons why a front end is not ready, for ``/readyz`` and the metrics.

Heads are judged as clients judge them: if all clients refuse the head, the front end is not ready, although
it still answers. There are two reasons for an old head. Either the signer has published no newer one
(``silence``), or this front end has not verified it yet (``behind``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from kt_es.errors import AccessDeniedError, EquivocationError, KtError, RollbackError
from kt_es.ledger import clock
from kt_es.ledger.clock import spoken
from kt_es.ledger.ledger import Ledger
from kt_es.server.late import RequestLog
from kt_es.server.problems import denial


class NotReadyReason(StrEnum):
    """Why a front end is not ready. These are labels of metrics: few, and without parts of requests."""

    ROLLBACK = "rollback"
    EQUIVOCATION = "equivocation"
    DIVERGENCE = "divergence"
    NO_EPOCH = "no-epoch"
    LOG_AWAY = "log-away"
    DISK_FULL = "disk-full"
    DENIED = "denied"
    SILENCE = "silence"
    BEHIND = "behind"
    FUTURE_HEAD = "future-head"


@dataclass(frozen=True, slots=True)
class Trouble:
    """One reason, and its sentence for people."""

    reason: NotReadyReason
    sentence: str


class Health:
    """The state of one front end. Only the thread that probes the log calls ``look``; any thread the rest.

    Args:
        now: the wall clock in ms.
        failure: gives the error that stopped the front end; None without one.
        away: gives the reason why the log cannot be reached, in words for clients; None while it can.
        full: gives the same for a disk that is full.
        denied: gives the missing rights without which the front end cannot follow the log.
    """

    def __init__(
        self,
        ledger: Ledger,
        heads: str,
        log: RequestLog,
        now: Callable[[], int],
        *,
        failure: Callable[[], KtError | None],
        away: Callable[[], str | None],
        full: Callable[[], str | None],
        denied: Callable[[], list[AccessDeniedError]],
    ) -> None:
        self._ledger = ledger
        self._heads = heads
        self._log = log
        self._now = now
        self._failure = failure
        self._away = away
        self._full = full
        self._denied = denied
        self._published = 0

    def look(self) -> None:
        """Count the published heads, if the latest head here is old.

        Raises ``UnavailableError`` while the log is away.
        """
        if not clock.silence(self._ledger.committed, self._now()):
            return
        try:
            self._published = self._log.last_revision(self._heads) + 1
        except AccessDeniedError:
            # The replica has the same problem and reports it.
            return

    def troubles(self) -> list[Trouble]:
        """Everything that is wrong, the most serious first."""
        return [*self._of_log(), *self._of_time()]

    def has(self, reason: NotReadyReason) -> bool:
        return any(trouble.reason is reason for trouble in self.troubles())

    def _of_log(self) -> Iterator[Trouble]:
        failure = self._failure()
        if failure is not None:
            yield _stopped(failure)
        if self._ledger.committed.epoch == 0:
            yield Trouble(NotReadyReason.NO_EPOCH, "no epoch yet")
        away = self._away()
        if away is not None:
            yield Trouble(NotReadyReason.LOG_AWAY, away)
        full = self._full()
        if full is not None:
            yield Trouble(NotReadyReason.DISK_FULL, full)
        for denied in self._denied():
            yield Trouble(NotReadyReason.DENIED, f"behind: {denial(denied)}")

    def _of_time(self) -> Iterator[Trouble]:
        committed, now = self._ledger.committed, self._now()
        lasts = clock.silence(committed, now)
        if lasts and self._published > committed.epoch:
            yield Trouble(
                NotReadyReason.BEHIND,
                f"behind: the head of epoch {committed.epoch} is {spoken(lasts)} old, and there are "
                f"{self._published}",
            )
        elif lasts:
            yield Trouble(
                NotReadyReason.SILENCE,
                f"no head since epoch {committed.epoch}: silence for {spoken(lasts)}; is the signer up?",
            )
        ahead = clock.future(committed, now)
        if ahead is not None:
            yield Trouble(
                NotReadyReason.FUTURE_HEAD,
                f"the head of epoch {ahead.epoch} is {spoken(ahead.ahead)} later than this machine's clock",
            )


def _stopped(failure: KtError) -> Trouble:
    """The trouble of a stopped front end. Only the first two messages are fit for clients."""
    match failure:
        case RollbackError():
            return Trouble(NotReadyReason.ROLLBACK, f"stopped serving: {failure}")
        case EquivocationError():
            return Trouble(NotReadyReason.EQUIVOCATION, f"stopped serving: {failure}")
    problem = "stopped serving: the logs, or the data here, are not what they must be"
    return Trouble(NotReadyReason.DIVERGENCE, problem)
