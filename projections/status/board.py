"""Collects what the status page shows, and serves it with the metrics and the evidence of a monitor."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prometheus_client import make_wsgi_app

import kt_es
from kt_es.client.elsewhere import EVIDENCE_NAME
from kt_es.crypto.hashes import sha256
from kt_es.formats.evidence import MAX_EVIDENCE_FILE
from kt_es.formats.heads import LogName, heads_origin
from kt_es.formats.notes import verifier_key
from kt_es.ledger.convicting import FOLDER
from kt_es.ledger.ledger import Ledger, config_chain, decoded_head, last_head
from kt_es.process.site import Page, Route, site
from projections.auditor import Alarm, Notice
from projections.cosigning.monitoring import MonitorCosigner
from projections.gossip import Gossip, Neighbour
from projections.monitor_metrics import MonitorMetrics
from projections.status.facts import Facts, Rules, Told, Verified
from projections.status.hours import Hour, Hours
from projections.status.page import status_page

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from kt_es.formats.entries import PublicKey

HOURS: Final = 48
TOLD: Final = 50
"""The number of alarms, and of ends of alarms, that the page shows."""

# Readers of the page share one, so that many of them cost no more than one. In seconds.
KEPT: Final = 1.0


@dataclass(frozen=True, slots=True)
class Monitored:
    """What a monitor monitors: ``source`` says for people where from. ``data`` is its data directory.

    ``also`` are the places that it compares with: URLs, and paths of files.
    """

    origin: str
    pinned: PublicKey
    source: str
    data: Path
    with_queue: bool
    also: Sequence[str] = ()

    def public(self, text: str) -> str:
        """Return ``text`` without paths of this machine: files of ``also`` have their names only."""
        # The name of a relative data directory may be any word, such as "monitor".
        end = r"(?![\w.-])" if self.data.is_absolute() else "(?=/)"
        text = re.sub(rf"(?<![\w./-]){re.escape(str(self.data))}{end}", "the data directory", text)
        for path in (Path(where) for where in self.also if "://" not in where):
            text = text.replace(str(path), path.name)
        return text


class Board:
    """The state behind the pages. Safe for threads: the monitor reports, and threads of the server read."""

    def __init__(
        self,
        monitored: Monitored,
        metrics: MonitorMetrics,
        now: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``now`` is the wall clock in ms, which may be set. ``monotonic`` says how old the page is, in s."""
        self._monitored = monitored
        self._metrics = metrics
        self._now = now
        self._monotonic = monotonic
        self._started = now()
        self._cosigner: MonitorCosigner | None = None
        self.gossip: Gossip | None = None
        """The comparisons with others, to show."""
        self._lock = threading.Lock()
        # All guarded by the lock. The ledger is None before it is opened and after it is closed.
        self._ledger: Ledger | None = None
        self._hours: Hours | None = None
        self._alarms: dict[Alarm, Told] = {}
        self._told: deque[Told] = deque(maxlen=TOLD)
        self._fault: str | None = None
        self._made: tuple[float, Page] | None = None

    def opened(self, ledger: Ledger) -> None:
        """Show ``ledger`` from now on, until ``closed``."""
        with self._lock:
            self._ledger = ledger
            self._hours = Hours(lambda epoch: _timestamp(ledger, epoch))

    def closed(self) -> None:
        """Read the ledger no more. Returns when no thread reads it."""
        with self._lock:
            self._ledger = self._hours = None

    def notice(self, notice: Notice) -> None:
        """Show an alarm that begins or ends."""
        told = Told(self._now(), self._monitored.public(notice.sentence), is_over=not notice.raised)
        with self._lock:
            self._told.appendleft(told)
            if notice.raised:
                self._alarms[notice.alarm] = told
            else:
                self._alarms.pop(notice.alarm, None)
            self._made = None

    def fault(self, problem: str) -> None:
        """Show what was found to be wrong."""
        sentence = self._monitored.public(problem)
        with self._lock:
            self._fault = sentence
            self._told.appendleft(Told(self._now(), sentence))
            self._made = None

    def app(self) -> WSGIApplication:
        """Return the application with all pages of the monitor."""
        routes: dict[str, Route] = {
            "/": lambda _: self._status(),
            "/evidence": lambda _: self._listed(),
            "/evidence/": self._evidence,
            "/heads/checkpoint": lambda _: self._checkpoint("heads"),
            "/mutations/checkpoint": lambda _: self._checkpoint("mutations"),
        }
        return site(routes, {"/metrics": make_wsgi_app(self._metrics.registry)})

    def show(self, cosigner: MonitorCosigner) -> None:
        """Show the checkpoints that ``cosigner`` has cosigned."""
        self._cosigner = cosigner

    def _checkpoint(self, log: LogName) -> Page | None:
        if self._cosigner is not None:
            return self._cosigner.page(log)
        with self._lock:
            if self._ledger is None or not self._ledger.committed.epoch:
                return None
            event, _ = last_head(self._ledger)
        # A replay from tiles has the checkpoints of some epochs only.
        text = event.heads_checkpoint if log == "heads" else event.mutations_checkpoint
        return Page(text.encode()) if text else None

    def _status(self) -> Page:
        with self._lock:
            made = self._monotonic()
            if self._made is not None and made - self._made[0] < KEPT:
                return self._made[1]
            page = status_page(self._facts(self._now()))
            self._made = made, page
            return page

    def _facts(self, now: int) -> Facts:
        what = self._monitored
        verified, rules, hours = self._state(now)
        return Facts(
            what.origin,
            verifier_key(heads_origin(what.origin), what.pinned.raw).encode(),
            what.source,
            kt_es.__version__,
            now,
            self._started,
            what.with_queue,
            verified,
            rules,
            self._metrics.lag,
            self._fault,
            tuple(self._alarms.values()),
            tuple(self._told),
            [path.name for path in self._files()],
            hours,
            self._neighbours(),
            None if self._cosigner is None else self._cosigner.latest,
            () if self._cosigner is None else self._cosigner.handed,
        )

    def _neighbours(self) -> Sequence[Neighbour]:
        public = self._monitored.public
        others = [
            replace(one, url=public(one.url), problem=public(one.problem))
            for one in (() if self.gossip is None else self.gossip.neighbours)
        ]
        return others if self._cosigner is None else (*others, *self._cosigner.neighbours)

    def _state(self, now: int) -> tuple[Verified | None, Rules | None, Sequence[Hour]]:
        ledger, hours = self._ledger, self._hours
        if ledger is None or hours is None or not (committed := ledger.committed).epoch:
            return None, None, ()
        verified = Verified(
            committed.epoch,
            committed.standing.timestamp,
            committed.heads,
            committed.log,
            committed.root.size,
        )
        rules = None
        if (signed := committed.standing.config) is not None:
            config = signed.config
            rules = Rules(
                config.signer_key.id.hex(),
                config.label_policy,
                config.max_interval,
                config.max_merge_delay,
                len(config_chain(ledger, committed)),
            )
        oldest = max(1, ledger.tables.states.beginning().epoch)
        return verified, rules, hours.last(HOURS, now, oldest, committed.epoch)

    def _listed(self) -> Page:
        found = []
        for path in self._files():
            data = path.read_bytes()
            found.append({"name": path.name, "size": len(data), "sha256": sha256(data).hex()})
        return Page(json.dumps({"evidence": found}, indent=1).encode() + b"\n", "application/json")

    def _evidence(self, name: str) -> Page | None:
        for path in self._files():
            if path.name == name:
                attached = {"Content-Disposition": f'attachment; filename="{name}"'}
                return Page(path.read_bytes(), "application/octet-stream", headers=attached)
        return None

    def _files(self) -> Sequence[Path]:
        folder = self._monitored.data / FOLDER
        if not folder.is_dir():
            return ()
        return sorted(
            path
            for path in folder.iterdir()
            if EVIDENCE_NAME.fullmatch(path.name)
            and path.is_file()
            and not path.is_symlink()
            and path.stat().st_size <= MAX_EVIDENCE_FILE
        )


def _timestamp(ledger: Ledger, epoch: int) -> int:
    return decoded_head(epoch, ledger.tables.heads.event(epoch).smh_bytes).head.timestamp
