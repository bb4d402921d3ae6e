"""``kt status``: the state of a directory, from its log and from the metrics of its processes.

The head that the front end serves is verified as in every other command. Values from the log and the metrics
are shown unchanged and labelled as unverified.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from kt_es.cli.addresses import address
from kt_es.cli.operators.rights import acls_of, default_rights, problems_of
from kt_es.cli.operators.status_parts import (
    TIMEOUT,
    ScrapedMetrics,
    of_frontend,
    of_monitor,
    of_signer,
    status_lines,
)
from kt_es.cli.options import Reach, ca_option, event_log, is_named, log_option, patience_option, state_option
from kt_es.cli.output import Output, config_path, output_of, running_up, settings_of
from kt_es.cli.people.history import head_document
from kt_es.client.heads import verify_freshness
from kt_es.config.settings import Settings
from kt_es.errors import AccessDeniedError, KtError, MalformedError, UnavailableError, VerificationError
from kt_es.eventstore.rights import READ, openings_acl
from kt_es.formats.configs import Config
from kt_es.formats.heads import HeadEvent, MapHead, SignedMapHead
from kt_es.process.clock import wall_clock

_T = TypeVar("_T")


@click.command("status")
@log_option
@click.option("--server", help="The front end's URL; default from kt.toml.")
@click.option("--vkey", help="The directory's key; default from kt.toml.")
@ca_option
@state_option
@click.option("--signer", metavar="HOST:PORT", help="Where it serves metrics; default from kt.toml.")
@click.option("--monitor", metavar="HOST:PORT", help="Where it serves metrics; default from kt.toml.")
@patience_option
@click.pass_context
def status_command(
    context: click.Context,
    /,
    log: str | None,
    server: str | None,
    signer: str | None,
    monitor: str | None,
    patience: float,
    **reach: Any,
) -> None:
    """Show the state of a directory: last head, waiting events, lag, merge delay, verdicts, restarts.

    It asks the log, the front end, and the signer and the monitor if they serve metrics. Without a kt.toml it
    asks --server alone. What is unknown is listed with the reason; without the log the exit code is 7. Only
    the head that the front end serves is verified.
    """
    is_default = context.find_root().get_parameter_source("config") is ParameterSource.DEFAULT
    asks_log = log is not None and is_named(context, "log")
    outsider = server is not None and not asks_log and is_default and not config_path(context).exists()
    settings = None if outsider else settings_of(context, log)
    output = output_of(context)
    inquiry = _Inquiry(settings, server, {"signer": signer, "monitor": monitor}, reach)
    document = inquiry.document(output, patience)
    output.data(document, status_lines(document))
    problem = inquiry.refused or inquiry.log_is_away
    if problem is not None:
        raise problem
    inquiry.check_freshness()


@dataclass(frozen=True, slots=True)
class _Frontend:
    """The newest config and the served head, both verified, and the metrics, which are unverified."""

    config: Config
    head: MapHead
    metrics: ScrapedMetrics


class _Inquiry:
    """Asks the log and all processes. ``_unknown`` explains why a value is missing.

    ``refused`` is the reason why the head of the front end was not accepted; None if it was accepted or if
    there was no answer. ``log_is_away`` is the reason why the log could not be reached.
    """

    def __init__(
        self,
        settings: Settings | None,
        server: str | None,
        addresses: Mapping[str, str | None],
        reach: Mapping[str, Any],
    ) -> None:
        self.refused: VerificationError | None = None
        self.log_is_away: UnavailableError | None = None
        self._settings = settings
        self._up = {} if settings is None else running_up(settings.base)
        listen, vkey, self._addresses = "", reach["vkey"], addresses
        if settings is not None:
            listen, vkey = f"http://{settings.frontend.listen}", vkey or settings.key
            known = {"signer": settings.signer.metrics, "monitor": settings.monitor.metrics}
            self._addresses = {name: addresses[name] or known[name] for name in known}
        self._server = (server or str(self._up.get("url") or listen)).rstrip("/")
        self._reach = Reach(self._server, vkey, reach["state"], reach["ca"], TIMEOUT)
        self._unknown: dict[str, str] = {}
        self._frontend: _Frontend | None = None

    def document(self, output: Output, patience: float) -> dict[str, Any]:
        """Return the answers. Raises ``UnavailableError`` if neither the log nor any process answers."""
        log = self._try("log", lambda: self._ask_log(output, patience))
        frontend = self._frontend = self._try("frontend", self._ask_frontend)
        signer = self._try("signer", lambda: self._scrape("signer", "kt_signer_epochs_total"))
        monitor = self._try("monitor", lambda: self._scrape("monitor", "kt_monitor_alarm"))
        if log is None and frontend is None and signer is None and monitor is None:
            missing = "frontend" if self._settings is None else "log"
            raise self.refused or UnavailableError(self._unknown[missing])
        promised = self._try("promised", lambda: _promised(frontend, signer, monitor))
        restarts = self._try("restarts", self._restarts)
        settings, rights, head = self._settings, None, None
        if log is not None and settings is not None:
            rights = self._try("rights", lambda: self._rights(settings, output, patience))
            head, _ = log
        elif frontend is not None:
            head = frontend.head
        named = settings or head
        return {
            "origin": None if named is None else named.origin,
            "head": None if head is None else head_document(head),
            # The head in the log is verified if the front end proves the same head.
            "head_verified": head is not None and frontend is not None and head == frontend.head,
            "head_age": None if head is None else round(time.time() - head.timestamp / 1000, 3),
            "queue_waiting": None if log is None else log[1],
            "rights": rights,
            "promised": promised,
            "signer": None if signer is None else of_signer(signer),
            "monitor": None if monitor is None else of_monitor(monitor),
            "frontend": None if frontend is None else _of_frontend(frontend, head),
            "restarts": restarts,
            "unknown": self._unknown,
        }

    def check_freshness(self) -> None:
        """Raise ``CannotTellError`` if the verified head is too old or in the future."""
        if self._frontend is not None:
            verify_freshness(self._frontend.head, self._frontend.config, wall_clock())

    def _try(self, part: str, ask: Callable[[], _T]) -> _T | None:
        try:
            return ask()
        except (UnavailableError, AccessDeniedError, MalformedError) as error:
            self._unknown[part] = str(error)
            return None

    def _ask_log(self, output: Output, patience: float) -> tuple[MapHead | None, int]:
        """Return the newest head in the log, unverified, and how many events wait after it in the queue."""
        if self._settings is None:
            raise UnavailableError("there is no kt.toml that names it; give --config, or --log and --vkey")
        names = self._settings.names
        try:
            with event_log(self._settings.log, output, patience) as opened:
                queue_last = opened.last_revision(names.queue)
                event = opened.last_event(names.heads)
        except UnavailableError as error:
            self.log_is_away = error
            raise
        head = None
        if event is not None:
            head = SignedMapHead.decode(HeadEvent.decode(event.data).smh_bytes).head
        return head, queue_last + 1 - (0 if head is None else head.queue_next)

    def _rights(self, settings: Settings, output: Output, patience: float) -> dict[str, Any]:
        """Describe rights that ``kt init --acl`` would change, and who may read streams of openings."""
        with event_log(settings.log, output, patience) as opened:
            problems = list(problems_of(opened, acls_of(settings)))
            defaults = self._try("default_rights", lambda: sorted(default_rights(opened)[READ]))
        return {"problems": problems, "openings_readers": openings_acl()[READ], "default_readers": defaults}

    def _ask_frontend(self) -> _Frontend:
        metrics = ScrapedMetrics.at(f"{self._server}/metrics", "kt_epoch")
        try:
            with self._reach.client() as client:
                # ``check_freshness`` checks the age of the head later: a silent directory has a status too.
                head = client.head(fresh=False).head
                return _Frontend(client.trusted().configs[-1].config, head, metrics)
        except UnavailableError:
            raise
        except KtError as error:
            # A front end without an epoch is no reason to omit the rest.
            if isinstance(error, VerificationError):
                self.refused = error
            raise UnavailableError(f"{self._server}: {error}") from None

    def _scrape(self, process: str, must_have: str) -> ScrapedMetrics:
        where = self._addresses[process]
        if where is None:
            raise UnavailableError(f"{process}.metrics is not set in kt.toml: set it, or give --{process}")
        return ScrapedMetrics.at(f"http://{address(where)}/metrics", must_have)

    def _restarts(self) -> dict[str, int]:
        restarts = self._up.get("restarts")
        if not isinstance(restarts, dict):
            raise UnavailableError("only `kt up` counts restarts, and it does not run beside kt.toml")
        return {str(name): int(count) for name, count in restarts.items()}


def _promised(
    frontend: _Frontend | None, signer: ScrapedMetrics | None, monitor: ScrapedMetrics | None
) -> dict[str, Any]:
    """Return ``max_interval`` and ``max_merge_delay``, in seconds, from a process that knows the config."""
    if frontend is not None:
        config = frontend.config
        return {"interval": config.max_interval / 1000, "merge_delay": config.max_merge_delay / 1000}
    for process, metrics in (("signer", signer), ("monitor", monitor)):
        delay = None if metrics is None else metrics.value(f"kt_{process}_promised_merge_delay_seconds")
        if metrics is not None and delay:
            interval = metrics.value(f"kt_{process}_promised_interval_seconds")
            return {"interval": interval, "merge_delay": delay}
    raise UnavailableError("no front end, signer or monitor tells the config: start one or set its metrics")


def _of_frontend(frontend: _Frontend, newest: MapHead | None) -> dict[str, Any]:
    document = of_frontend(frontend.metrics)
    if newest is not None:
        document["lag"]["heads"] = max(0, newest.epoch - frontend.head.epoch)
        document["lag"]["records"] = max(0, newest.log_size - frontend.head.log_size)
    return document
