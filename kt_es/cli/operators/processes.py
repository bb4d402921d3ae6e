"""Commands that run one process of a directory: ``kt signer``, ``kt frontend``, ``kt monitor``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from kt_es.cli.addresses import address
from kt_es.cli.auditors.tiled import from_option, refuse_without_from, tile_address, tile_settings
from kt_es.cli.operators.cosigner import cosigner_of, monitor_options
from kt_es.cli.options import (
    Number,
    data_option,
    log_option,
    metrics_option,
    options,
    with_common_options,
)
from kt_es.cli.output import configure_logs, logs_of, output_of, settings_of, stop_on_signals
from kt_es.cli.policies import read_policies
from kt_es.cli.supervisor import tell_parent
from kt_es.config.tables import FrontendTable
from kt_es.errors import ConfigError
from kt_es.process.clock import switch_threads_soon
from kt_es.server.limits import ClientLimits
from projections.monitor import MonitorSettings
from projections.monitor import serve as serve_monitor
from signer.limits import EpochLimits
from signer.service import SignerSettings
from signer.service import serve as serve_signer

_FILE = click.Path(path_type=Path)
_COUNT = click.IntRange(1)
_RATE = Number(0)

_limit_options = options(
    click.option("--max-connections", type=_COUNT, metavar="COUNT", help="Connections at a time."),
    click.option("--address-connections", type=_COUNT, metavar="COUNT", help="Connections of one address."),
    click.option("--network-connections", type=_COUNT, metavar="COUNT", help="Connections of one network."),
    click.option(
        "--address-rate", type=_RATE, metavar="RATE", help="Lookups a second of one address; 0 is no limit."
    ),
    click.option(
        "--network-rate", type=_RATE, metavar="RATE", help="Lookups a second of one network; 0 is no limit."
    ),
    click.option(
        "--exempt", metavar="NETWORKS", help="Networks without limits of their own, with commas between them."
    ),
    click.option(
        "--trusted-proxies", metavar="NETWORKS", help="Networks whose X-Forwarded-For names the client."
    ),
)
"""The limits for one client. Only ``kt.toml`` has defaults for these options."""


def limits_of(table: FrontendTable, given: Mapping[str, object]) -> ClientLimits:
    """Return the limits of ``table``, with the values of the options that were given."""
    given = {name: value for name, value in given.items() if value is not None}
    try:
        return FrontendTable(**{**table.model_dump(), **given}).limits
    except ValueError as error:
        problem = next(iter(getattr(error, "errors", list)()), {"msg": str(error), "loc": ("limits",)})
        name = str(problem["loc"][0]).replace("_", "-")
        raise ConfigError(
            f"{name}: {str(problem['msg']).removeprefix('Value error, ')}; change the option or kt.toml"
        ) from None


class _Signer(click.Group):
    """``kt signer``. Its subcommand is imported when it runs, since the signer does not need its imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["rotate"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "rotate":
            return None
        from kt_es.cli.operators.rotate import rotate_command

        return with_common_options(rotate_command, "KT_SIGNER_ROTATE")


@click.group("signer", cls=_Signer, invoke_without_command=True)
@log_option
@data_option
@metrics_option
@click.pass_context
def signer_command(context: click.Context, log: str | None, data: Path | None, metrics: str | None) -> None:
    """Run the signer, or a standby that takes over when the signer is gone.

    On SIGHUP it reads the limits in kt.toml again.
    """
    if context.invoked_subcommand is not None:
        return
    configure_logs("signer", logs_of(context))

    def read() -> SignerSettings:
        settings = settings_of(context, log)
        table = settings.signer
        return SignerSettings(
            settings.names,
            settings.origin,
            settings.pinned,
            settings.log,
            data or settings.path(table.data),
            settings.path(table.keys),
            EpochLimits(batch_limit=table.batch_limit, truncate=table.truncate_queue),
            metrics_at(metrics or table.metrics),
            settings.sharing,
        )

    serve_signer(read(), stop_on_signals(), read)


@click.command("frontend")
@log_option
@data_option
@click.option("--listen", metavar="HOST:PORT", help="Where to serve; default as in kt.toml.")
@click.option(
    "--max-backlog",
    type=_COUNT,
    metavar="ITEMS",
    help="Refuse submissions while more wait in the queue; default as in kt.toml, 200000.",
)
@click.option(
    "--tls-cert", type=_FILE, help="Serve HTTPS: the certificate in PEM, with its intermediate certificates."
)
@click.option("--tls-key", type=_FILE, help="The certificate's private key in PEM.")
@click.option(
    "--workers", type=_COUNT, metavar="COUNT", help="Processes that answer; default as in kt.toml, 1."
)
@click.option(
    "--grpc-port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Serve gRPC as well, at this port of the same host; default as in kt.toml, not at all.",
)
@_limit_options
@click.pass_context
def frontend_command(
    context: click.Context,
    /,
    log: str | None,
    data: Path | None,
    listen: str | None,
    max_backlog: int | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    workers: int | None,
    grpc_port: int | None,
    **limits: object,
) -> None:
    """Run a front end: it puts submissions into the queue, and answers lookups with proofs.

    The proofs are from its own replica of the map, or from the shared store that kt.toml names.

    On SIGHUP it reads its certificate, and the limits and [registration] in kt.toml again. On SIGUSR1 it
    replaces several workers one by one.
    """
    from projections.frontend import FrontendSettings, serve

    configure_logs("frontend", logs_of(context))
    # A history keeps one thread busy for a long time. A lookup changes threads about ten times, and with the
    # default interval it would wait 5 ms each time.
    switch_threads_soon()

    def read() -> FrontendSettings:
        settings = settings_of(context, log)
        table = settings.frontend
        where = address(listen or table.listen)
        return FrontendSettings(
            origin=settings.origin,
            directory=settings.directory,
            signer_key=settings.pinned,
            log=settings.log,
            data=data or settings.path(table.data),
            vrf_key=settings.path(table.vrf_key),
            host=where.host,
            port=where.port,
            max_backlog=max_backlog or table.max_backlog,
            limits=limits_of(table, limits),
            tls_cert=tls_cert or (table.tls_cert and settings.path(table.tls_cert)),
            tls_key=tls_key or (table.tls_key and settings.path(table.tls_key)),
            grpc_port=table.grpc_port if grpc_port is None else grpc_port,
            sharing=settings.sharing,
            workers=workers or table.workers,
            registration=settings.registration.settings(settings.base),
            cosigners=settings.cosign.known(settings.base),
        )

    settings = read()

    def ready(url: str) -> None:
        tell_parent()
        output_of(context).ok(f"serving {settings.origin} at {url}")

    if settings.workers == 1:
        serve(settings, stop_on_signals(), read, ready)
        return
    from projections.workers import serve_by_workers

    serve_by_workers(settings, partial(_prepare, logs_of(context)), stop_on_signals(), read, ready)


def _prepare(logs: str, name: str) -> None:
    """Configure the log of a process that a front end has started."""
    configure_logs(name, logs)
    switch_threads_soon()


@click.command("monitor")
@log_option
@from_option
@click.option("--vkey", help="Any signer key of the directory, with --from, to watch without a kt.toml.")
@click.option(
    "--interval",
    type=Number(0.1, 30),
    metavar="SECONDS",
    help="With --from, how often to look for new heads; default half of max_interval, 1 to 30.",
)
@data_option
@metrics_option
@click.option(
    "--exit-on-silence/--no-exit-on-silence",
    default=None,
    help="End with code 7 if no head comes in time; default as in kt.toml.",
)
@monitor_options
@click.pass_context
def monitor_command(
    context: click.Context,
    /,
    log: str | None,
    url: str | None,
    ca: Path | None,
    vkey: str | None,
    interval: float | None,
    data: Path | None,
    metrics: str | None,
    exit_on_silence: bool | None,
    also: tuple[str, ...],
    webhooks: tuple[str, ...],
    policy: Path | None,
    monitors: Path | None,
    policy_age: float,
    **cosigner: Any,
) -> None:
    """Replay and verify both logs as they grow, and end with an alarm at the first difference.

    If no head comes for max_interval and a minute, the log and the metrics show an alarm; with
    --exit-on-silence the monitor ends with code 7.

    With --from no right to the event log is needed: a URL and the key of --vkey are enough.
    """
    configure_logs("monitor", logs_of(context))
    if url is None:
        refuse_without_from(context, {"ca": ca, "vkey": vkey, "interval": interval})
    tiles = None if url is None else tile_address(context, url, ca, interval)

    def read() -> MonitorSettings:
        settings = settings_of(context, log) if tiles is None else tile_settings(context, vkey)
        table = settings.monitor
        return MonitorSettings(
            settings.names,
            settings.origin,
            settings.pinned,
            settings.log,
            data or settings.path(table.data),
            table.read_queue,
            metrics_at(metrics or table.metrics),
            table.exit_on_silence if exit_on_silence is None else exit_on_silence,
            also or table.also,
            table.also_interval,
            webhooks or table.webhooks,
            tiles,
            cosigner_of(settings, **cosigner),
            read_policies(policy, monitors, policy_age),
        )

    serve_monitor(read(), stop_on_signals(), read)


def metrics_at(where: str | None) -> tuple[str, int] | None:
    """Return host and port of the option --metrics. Raises ``ConfigError``."""
    if where is None:
        return None
    parsed = address(where, "metrics")
    return parsed.host, parsed.port
