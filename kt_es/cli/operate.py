"""``kt init``, and the processes of a directory one by one."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from kt_es.cli.common import with_common_options
from kt_es.cli.context import config_path, logs_of, output_of, settings_of, stop_on_signals
from kt_es.cli.limits import limit_options, limits_of
from kt_es.cli.logs import configure_logs
from kt_es.cli.numbers import Number
from kt_es.cli.rights import set_rights
from kt_es.cli.setup import (
    CONFIG_OPTIONS,
    NewDirectory,
    begin_queue,
    given_options,
    refuse_other_settings,
    write_directory,
)
from kt_es.cli.supervisor import tell_parent
from kt_es.cli.waiting import patience_option
from kt_es.config import FILE_NAME, Address, Settings, load_settings
from kt_es.errors import ConfigError, KtError
from kt_es.eventstore.esdb import Connector
from kt_es.eventstore.patient import Patience
from kt_es.eventstore.uri import check_uri
from kt_es.formats.labels import LABEL_POLICIES
from kt_es.process.signals import Reloaded, differing, reloading
from projections.monitor import MonitorSettings, monitor
from signer.loop import EpochLimits
from signer.service import SignerSettings
from signer.service import serve as serve_signer

LOG_OPTION = click.option("--log", "log", metavar="URI", help="Connection string of the event log.")
DATA_OPTION = click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="Its data; default as in kt.toml."
)
METRICS_OPTION = click.option(
    "--metrics", metavar="HOST:PORT", help="Serve figures for Prometheus; default as in kt.toml."
)


_FILE = click.Path(path_type=Path)


def address(text: str, what: str = "listen") -> Address:
    """``text`` as an address; ``ConfigError`` says that it is ``what``'s."""
    try:
        return Address.parse(text)
    except ValueError as error:
        raise ConfigError(f"{what}: {error}") from None


@click.command("init")
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="Where to make it; default here."
)
@click.option("--directory", default="people", show_default=True, help="Its name, which names the streams.")
@click.option("--origin", default="localhost/people", show_default=True, help="Its schema-less URL.")
@click.option("--log", default="esdb://127.0.0.1:2113?Tls=false", show_default=True, metavar="URI")
@click.option(
    "--label-policy", type=click.Choice(LABEL_POLICIES), default=LABEL_POLICIES[0], show_default=True
)
@click.option("--min-interval", type=Number(0), default=1.0, show_default=True, help="Seconds.")
@click.option("--max-interval", type=Number(0.1), default=60.0, show_default=True, help="Seconds.")
@click.option("--acl", is_flag=True, help="Set the streams' rights for users frontend, signer, monitor.")
@click.option("--save-credentials", is_flag=True, help="Keep user and password of --log in kt.toml.")
@patience_option
@click.pass_context
def init_command(
    context: click.Context,
    data: Path | None,
    directory: str,
    origin: str,
    log: str,
    label_policy: str,
    min_interval: float,
    max_interval: float,
    acl: bool,
    save_credentials: bool,
    patience: float,
) -> None:
    """Make a directory: its keys, kt.toml, and the config that begins its queue.

    Run again, it does what is still missing; nothing that exists is overwritten.
    """
    output = output_of(context)
    base = data or config_path(context).parent
    new = NewDirectory(
        directory,
        origin,
        log,
        label_policy,
        min_interval,
        max_interval,
        save_credentials=save_credentials,
    )
    check_uri(log)
    if (base / FILE_NAME).exists():
        settings = load_settings(base / FILE_NAME)
        refuse_other_settings(context, settings, "directory", "origin", "log")
    else:
        settings = write_directory(base, new)
        output.ok(f"made keys and {base / FILE_NAME} for {settings.origin}")
        if settings.log != log:
            output.note(
                f"  {FILE_NAME} has the log's address without user and password: give each process its own "
                "with --log or KT_LOG"
            )
    connector = Connector(log if given_options(context, ("log",)) else settings.log)

    def begin() -> bool:
        event_log = connector()
        try:
            # First: whoever has logged in may otherwise write the streams as soon as they are there.
            problems = set_rights(event_log, settings) if acl else []
            if problems:
                for problem in problems:
                    output.fail(problem)
                raise KtError(
                    f"rights that are not as they have to be: {len(problems)}; the queue was not begun"
                )
            return begin_queue(settings, event_log, new, given_options(context, CONFIG_OPTIONS))
        finally:
            event_log.close()

    # All of it again after an outage: what was done already is found and left alone.
    begun = Patience(patience, output.note).until_done(begin)
    output.ok(f"{'began' if begun else 'found'} the queue {settings.names.queue}")
    output.data(
        {"origin": settings.origin, "directory": settings.directory, "key": settings.key},
        [settings.key],
    )


class _Signer(click.Group):
    """``kt signer`` runs; its subcommand needs what a process that runs does not import."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["rotate"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "rotate":
            return None
        from kt_es.cli.rotating import rotate_command

        return with_common_options(rotate_command, "KT_SIGNER_ROTATE")


@click.group("signer", cls=_Signer, invoke_without_command=True)
@LOG_OPTION
@DATA_OPTION
@METRICS_OPTION
@click.pass_context
def signer_command(context: click.Context, log: str | None, data: Path | None, metrics: str | None) -> None:
    """Run the signer, or a standby that takes over when the signer is gone.

    SIGHUP has it read the limits of kt.toml again.
    """
    if context.invoked_subcommand is not None:
        return
    configure_logs("signer", logs_of(context))

    def read() -> SignerSettings:
        return signer_settings(settings_of(context, log), data, metrics)

    connect = Connector(settings_of(context, log).log)
    serve_signer(read(), connect, stop_on_signals(), read)


def signer_settings(
    settings: Settings, data: Path | None = None, metrics: str | None = None
) -> SignerSettings:
    table = settings.signer
    return SignerSettings(
        settings.names,
        settings.origin,
        settings.pinned,
        data or settings.path(table.data),
        settings.path(table.keys),
        EpochLimits(batch_limit=table.batch_limit, truncate=table.truncate_queue),
        _metrics_at(metrics or table.metrics),
    )


@click.command("frontend")
@LOG_OPTION
@DATA_OPTION
@click.option("--listen", metavar="HOST:PORT", help="Default as in kt.toml.")
@click.option(
    "--max-backlog",
    type=click.IntRange(1),
    metavar="ITEMS",
    help="Refuse submissions while more wait in the queue; default as in kt.toml, 200000.",
)
@click.option(
    "--tls-cert", type=_FILE, help="Serve HTTPS: certificate in PEM, with those between it and its root."
)
@click.option("--tls-key", type=_FILE, help="Its private key in PEM.")
@limit_options
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
    **limits: object,
) -> None:
    """Run a front end: submissions into the queue, lookups with proofs from its own replica.

    SIGHUP has it read its certificate and the limits of kt.toml again.
    """
    from projections.frontend import FrontendSettings, serve

    output = output_of(context)
    configure_logs("frontend", logs_of(context))
    # A history is long work in one thread; a lookup hands over between threads some ten times, and would
    # wait 5 ms each time.
    sys.setswitchinterval(0.0005)

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
        )

    settings = read()

    def ready(url: str) -> None:
        tell_parent()
        output.ok(f"serving {settings.origin} at {url}")

    serve(settings, stop_on_signals(), ready, read)


@click.command("monitor")
@LOG_OPTION
@DATA_OPTION
@METRICS_OPTION
@click.option(
    "--exit-on-silence/--no-exit-on-silence",
    default=None,
    help="End with code 7 when no head comes in time; default as in kt.toml.",
)
@click.pass_context
def monitor_command(
    context: click.Context,
    log: str | None,
    data: Path | None,
    metrics: str | None,
    exit_on_silence: bool | None,
) -> None:
    """Replay and verify both logs as they grow; end with an alarm at the first difference.

    No head for max_interval and a minute is an alarm in the log and the figures, and with
    --exit-on-silence the end, by exit code 7.
    """
    configure_logs("monitor", logs_of(context))

    def read() -> MonitorSettings:
        settings = settings_of(context, log)
        table = settings.monitor
        return MonitorSettings(
            settings.names,
            settings.origin,
            settings.pinned,
            data or settings.path(table.data),
            table.read_queue,
            _metrics_at(metrics or table.metrics),
            table.exit_on_silence if exit_on_silence is None else exit_on_silence,
        )

    started = read()
    connect = Connector(settings_of(context, log).log)
    # A monitor has no certificate and no limit: what is changed waits for its restart, and that is said.
    with reloading(lambda: Reloaded(needs_restart=differing(started, read()))):
        monitor(started, connect, stop_on_signals())


def _metrics_at(where: str | None) -> tuple[str, int] | None:
    if where is None:
        return None
    parsed = address(where, "metrics")
    return parsed.host, parsed.port
