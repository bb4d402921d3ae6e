"""Whether a front end is well: what ``/readyz`` and the metrics say, each reason with a name of its own.

A head is judged as clients judge it: where all of them refuse it, this front end is not ready, although it
still answers. It serves an old head for two reasons. Either nobody has published a newer one, and the signer
is to be looked at (``silence``), or this front end has not verified it yet (``behind``).
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
    """Why a front end is not ready. Labels of metrics: few, and nothing of a request."""

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
    """One reason, and the sentence about it."""

    reason: NotReadyReason
    sentence: str


class Health:
    """What is known of one front end.

    ``failure`` gives why it has stopped serving, ``away`` why the log cannot be reached, in words for
    clients, ``full`` whether the disk is full, in the same words, ``denied`` the rights to follow that are
    missing. ``now`` is the wall clock in ms.

    ``look`` is for the thread that probes the log; the rest may be called from any thread.
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
        """See how many heads are published, where the latest one here is old.

        Raises ``UnavailableError`` while the log is away.
        """
        if not clock.silence(self._ledger.committed, self._now()):
            return
        try:
            self._published = self._log.last_revision(self._heads) + 1
        except AccessDeniedError:
            # The replica is denied the same, and says so.
            return

    def troubles(self) -> list[Trouble]:
        """Everything that is wrong, the gravest first."""
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
    """The first two are in words of ``Anchor``; what else may be, is only for the log of this process."""
    match failure:
        case RollbackError():
            return Trouble(NotReadyReason.ROLLBACK, f"stopped serving: {failure}")
        case EquivocationError():
            return Trouble(NotReadyReason.EQUIVOCATION, f"stopped serving: {failure}")
    problem = "stopped serving: the logs, or the data here, are not what they must be"
    return Trouble(NotReadyReason.DIVERGENCE, problem)
