"""The state of a front end for its operator: why it is not ready, and its metrics.

Heads are judged as clients judge them: if all clients refuse the head, the front end is not ready, although
it still answers. There are two reasons for an old head. Either the signer has published no newer one
(``silence``), or this front end has not verified it yet (``behind``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from kt_es.errors import AccessDeniedError, EquivocationError, KtError, RollbackError
from kt_es.eventstore.streams import EventLog
from kt_es.formats.heads import LOG_NAMES
from kt_es.ledger import clock
from kt_es.ledger.clock import spoken
from kt_es.process.exposition import Samples
from kt_es.process.outage import Lasting
from kt_es.server.availability import Backlog, LogWatch
from kt_es.server.handlers import DirectoryReader
from kt_es.server.responses import STORE_ROWS, NotNowError, denial
from kt_es.server.store_watch import StoreWatch

ROWS_PATIENCE = 10.0
"""Seconds for which rows may be missing or wrong: in another datacenter they come after the head."""

_PATIENCE = 5.0  # seconds
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class NotReadyReason(StrEnum):
    """Why a front end is not ready. These are labels of metrics: few, and without parts of requests."""

    ROLLBACK = "rollback"
    EQUIVOCATION = "equivocation"
    DIVERGENCE = "divergence"
    NO_EPOCH = "no-epoch"
    LOG_AWAY = "log-away"
    STORE_AWAY = "store-away"
    STORE_ROWS = "store-rows"
    DISK_FULL = "disk-full"
    DENIED = "denied"
    SILENCE = "silence"
    BEHIND = "behind"
    FUTURE_HEAD = "future-head"
    REPLICA_AWAY = "replica-away"


@dataclass(frozen=True, slots=True)
class Trouble:
    """One reason, and its sentence for people."""

    reason: NotReadyReason
    sentence: str


@dataclass(slots=True)
class Health:
    """The state of one front end. Only the thread that probes the log calls ``look``; any thread the rest.

    Attributes:
        heads: The stream of heads in ``log``.
        now: The wall clock in ms.
        denied: Gives the missing rights without which the front end cannot follow the log.
        stuck: Gives the row of the shared store without which the next epoch cannot be taken.
        elsewhere: Gives what is wrong with the process that keeps the replica, if that is another one.
        published: The number of published heads at the last look.
    """

    directory: DirectoryReader
    watch: LogWatch
    store: StoreWatch
    heads: str
    log: Callable[[], EventLog]
    now: Callable[[], int]
    denied: Callable[[], list[AccessDeniedError]]
    stuck: Callable[[], Lasting | None]
    elsewhere: Callable[[], Sequence[Trouble]] = tuple
    published: int = 0

    def look(self) -> None:
        """Count the published heads, if the latest head here is old.

        Raises ``UnavailableError`` while the log cannot be reached.
        """
        if not clock.silence(self.directory.ledger.committed, self.now()):
            return
        try:
            self.published = self.log().last_revision(self.heads) + 1
        except AccessDeniedError:
            # The replica has the same problem and reports it.
            return

    def troubles(self) -> list[Trouble]:
        """Return everything that is wrong, the most serious first."""
        here = [*self._of_log(), *self._of_time()]
        known = {trouble.reason for trouble in here}
        return [*here, *(trouble for trouble in self.elsewhere() if trouble.reason not in known)]

    def has(self, reason: NotReadyReason) -> bool:
        return any(trouble.reason is reason for trouble in self.troubles())

    def why_no_epoch(self) -> str:
        """Return the reason why there is no epoch yet, in words for clients."""
        found = [trouble.sentence for trouble in self._of_log() if trouble.reason != NotReadyReason.NO_EPOCH]
        if found:
            return "; ".join(found)
        shared = self.directory.ledger.store.is_shared
        return "it waits for the newest head" if shared else "it is still reading the logs"

    def _of_log(self) -> Iterator[Trouble]:
        if self.directory.failure is not None:
            yield _stopped(self.directory.failure)
        if self.directory.ledger.committed.epoch == 0:
            yield Trouble(NotReadyReason.NO_EPOCH, "no epoch yet")
        if (away := self.watch.problem) is not None:
            yield Trouble(NotReadyReason.LOG_AWAY, away)
        if (away := self.store.problem) is not None:
            yield Trouble(NotReadyReason.STORE_AWAY, away)
        yield from self._of_rows()
        if (full := self.directory.disk_problem) is not None:
            yield Trouble(NotReadyReason.DISK_FULL, full)
        for denied in self.denied():
            yield Trouble(NotReadyReason.DENIED, f"behind: {denial(denied)}")

    def _of_rows(self) -> Iterator[Trouble]:
        epoch = self.directory.ledger.committed.epoch
        taken = f"no epoch after {epoch} is taken" if epoch else "no epoch is taken"
        problems = (
            ("lookups of what is not in memory fail", self.store.rows),
            (taken, self.stuck()),
        )
        # The older one, which a newer one must not hide.
        found = min(
            ((problem.since, meaning, problem) for meaning, problem in problems if problem is not None),
            default=None,
        )
        if found is None:
            return
        since, meaning, lasting = found
        lasts = time.monotonic() - since
        # Before the first epoch nothing is answered, so there is nothing to wait for.
        if lasts >= ROWS_PATIENCE or not epoch:
            yield Trouble(
                NotReadyReason.STORE_ROWS,
                f"{meaning} for {spoken(round(1000 * lasts))}, since {STORE_ROWS}: {lasting.problem}; see "
                "kt store check and kt store rebuild",
            )

    def _of_time(self) -> Iterator[Trouble]:
        committed, now = self.directory.ledger.committed, self.now()
        lasts = clock.silence(committed, now)
        if lasts and self.published > committed.epoch:
            yield Trouble(
                NotReadyReason.BEHIND,
                f"behind: the head of epoch {committed.epoch} is {spoken(lasts)} old, and there are "
                f"{self.published}",
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
    """Return the trouble of a stopped front end. Only the first two messages are fit for clients."""
    match failure:
        case RollbackError():
            return Trouble(NotReadyReason.ROLLBACK, f"stopped serving: {failure}")
        case EquivocationError():
            return Trouble(NotReadyReason.EQUIVOCATION, _convicted(failure))
    problem = "stopped serving: the logs, or the data here, are not what they must be"
    return Trouble(NotReadyReason.DIVERGENCE, problem)


def _convicted(failure: EquivocationError) -> str:
    # No answer names a path: the log line "stopped serving" does.
    if failure.saved is None:
        return f"stopped serving: {failure}; the evidence is not saved, see the log of this front end"
    return (
        f"stopped serving: {failure}; the evidence is {failure.saved.name} in the folder evidence of "
        "frontend.data: publish it, move it away once the case is settled, and restart this front end"
    )


class Metrics:
    """``clock`` gives the time in ms since 1970, for the age of the latest head."""

    def __init__(
        self,
        clock: Callable[[], int],
        backlog: Backlog,
        keeps_from_ready: Callable[[NotReadyReason], bool],
    ) -> None:
        samples = Samples()
        self._clock = clock
        self._samples = samples
        self._timestamp = 0
        # Asks for the page of all processes of this front end, if there are others.
        self.ask: Callable[[], Future[bytes]] | None = None
        self.lookups = samples.counter("kt_lookups", "Lookups answered, by result", "result")
        self.submissions = samples.counter("kt_submissions", "Submissions answered, by verdict", "verdict")
        self.requests = samples.histogram("kt_request_seconds", "Time to answer", "route", buckets=_BUCKETS)
        self.refused = samples.counter(
            "kt_refused", "Connections and requests refused or ended, by reason", "why"
        )
        self.registrations = samples.counter(
            "kt_registrations", "First versions, by the way that was asked and its answer", "way", "result"
        )
        self.mails = samples.counter("kt_registration_mails", "Registration mails asked for", "result")
        self.cosigned = {
            log: samples.gauge(
                f"kt_{log}_cosigned_timestamp_seconds",
                f"Time of the latest cosignature of the log of {log}, by cosigner",
                labels=("cosigner",),
            )
            for log in LOG_NAMES
        }
        self.rows = samples.counter(
            "kt_store_rows_refused", "Requests refused for missing or wrong rows of the shared store"
        )
        self._epoch = samples.gauge("kt_epoch", "Latest epoch committed by the replica")
        self._lag = samples.gauge("kt_replica_lag_seconds", "From a head's timestamp to its commit here")
        samples.gauge(
            "kt_head_age_seconds",
            "Time since the timestamp of the latest head; below 0 if that is in the future",
            self._age,
        )
        not_ready = Gauge(
            "kt_not_ready",
            "1 while a reason keeps the front end from being ready",
            ["reason"],
            registry=samples.registry,
        )
        for reason in NotReadyReason:
            not_ready.labels(reason).set_function(partial(keeps_from_ready, reason))
        samples.gauge(
            "kt_log_reachable",
            "1 while the event log can be reached",
            lambda: not keeps_from_ready(NotReadyReason.LOG_AWAY),
        )
        samples.gauge(
            "kt_disk_full",
            "1 while nothing can be written for want of space",
            lambda: keeps_from_ready(NotReadyReason.DISK_FULL),
        )
        samples.gauge(
            "kt_backlog_items", "Items in the queue behind the last head, estimated", lambda: backlog.items
        )
        samples.gauge(
            "kt_backlog_limit_items", "Above so many, submissions are refused", lambda: backlog.limit
        )

    def certificate(self, until: Callable[[], float]) -> None:
        """Export the end of the TLS certificate, which ``until`` gives in seconds since 1970."""
        self._samples.gauge(
            "kt_tls_certificate_end_seconds", "When the certificate that is served ends, Unix time", until
        )

    def committed(self, epoch: int, timestamp: int) -> None:
        """Note that the replica has committed ``epoch``, whose head has ``timestamp`` in ms since 1970."""
        self._timestamp = timestamp
        self._epoch.set(epoch)
        self._lag.set(max(0.0, self._age()))

    @property
    def registry(self) -> CollectorRegistry:
        return self._samples.registry

    def render(self) -> bytes:
        """Return the page of this process alone."""
        return generate_latest(self.registry)

    async def page(self) -> bytes:
        """Return the page of all processes. Raises ``UnavailableError`` if the others do not answer."""
        if self.ask is None:
            return self.render()
        try:
            return await asyncio.wait_for(asyncio.wrap_future(self.ask()), _PATIENCE)
        except TimeoutError:
            raise NotNowError("the processes of this front end do not answer; ask again") from None

    def _age(self) -> float:
        return (self._clock() - self._timestamp) / 1000 if self._timestamp else 0.0
