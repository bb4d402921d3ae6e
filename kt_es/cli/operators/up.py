"""``kt up``: run node, signer, front end and monitor as processes, until interrupted."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from click.core import ParameterSource

from kt_es.cli.addresses import address, free_addresses
from kt_es.cli.logs import configure_logs
from kt_es.cli.operators.running import RunningDirectory
from kt_es.cli.operators.setup import CONFIG_OPTIONS, NewDirectory, refuse_other_settings, write_directory
from kt_es.cli.options import Number, given_options
from kt_es.cli.output import config_path, output_of, stop_on_signals
from kt_es.config import FILE_NAME, Address, FrontendTable, NodeTable, Settings, load_settings
from kt_es.errors import ConfigError, DiskFullError, LockedError
from kt_es.formats.labels import LABEL_POLICIES
from kt_es.node.stopped import has_users
from kt_es.process.log_filters import without_password
from kt_es.process.network import is_loopback
from kt_es.process.space import is_full

LOCK_FILE = "up.lock"


@click.command("up")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("kt-data"),
    show_default=True,
    help="The directory's files, kt.toml among them.",
)
@click.option(
    "--origin",
    default="localhost/people",
    show_default=True,
    help="For a new directory: its schema-less URL.",
)
@click.option(
    "--label-policy",
    type=click.Choice(LABEL_POLICIES),
    default=LABEL_POLICIES[0],
    show_default=True,
    help="For a new directory: which labels it has.",
)
@click.option(
    "--min-interval",
    type=Number(0),
    default=1.0,
    show_default=True,
    help="For a new directory: seconds that an epoch collects submissions.",
)
@click.option(
    "--max-interval",
    type=Number(0.1),
    default=60.0,
    show_default=True,
    help="For a new directory: seconds between two heads at most.",
)
@click.option(
    "--listen", metavar="HOST:PORT", help="Address of the front end; default as in kt.toml, 127.0.0.1:8080."
)
@click.option(
    "--node-listen", metavar="HOST:PORT", help="Address of the node; default as in kt.toml, 127.0.0.1:2113."
)
@click.option("-v", "--verbose", is_flag=True, help="Show the logs of the processes, as JSON lines.")
@click.pass_context
def up_command(
    context: click.Context,
    data: Path,
    origin: str,
    label_policy: str,
    min_interval: float,
    max_interval: float,
    listen: str | None,
    node_listen: str | None,
    verbose: bool,
) -> int:
    """Run a whole directory on this machine. If --data has none, make one first.

    A process that dies is reported and started again. Interrupt to stop.
    """
    configure_logs("up", "json" if verbose else "problems")
    output = output_of(context)
    _refuse_other_file(context, data)
    with locked(data):
        known = load_settings(data / FILE_NAME) if (data / FILE_NAME).exists() else None
        if known is not None:
            _refuse_users(known)
            refuse_other_settings(context, known, "origin")
            _refuse_other_log(known)
        node_listen = node_listen or (known.node if known else NodeTable()).listen
        listen = listen or (known.frontend if known else FrontendTable()).listen
        node, frontend = free_addresses(address(node_listen, "node-listen"), address(listen))
        log = f"esdb://{node}?Tls=false"
        new = NewDirectory(
            "people", origin, log, label_policy, min_interval, max_interval, node_listen, listen
        )
        settings = known or write_directory(data, new)
        if known is None:
            _refuse_users(settings)
            output.ok(f"made {data} for {settings.origin}")
        given = given_options(context, CONFIG_OPTIONS)
        running = RunningDirectory(output, settings, new, given, node, frontend)
        return running.until(stop_on_signals(), verbose=verbose)


def _refuse_other_file(context: click.Context, data: Path) -> None:
    """Refuse an option that names another kt.toml than the file in --data, which ``kt up`` reads."""
    named = config_path(context)
    is_given = context.find_root().get_parameter_source("config") is ParameterSource.COMMANDLINE
    if is_given and named.resolve() != (data / FILE_NAME).resolve():
        raise click.UsageError(
            f"kt up reads {data / FILE_NAME} and not {named}: name the directory with --data {named.parent}"
        )


def _refuse_users(settings: Settings) -> None:
    """Refuse a node with users: the processes that ``kt up`` starts do not log in."""
    data = settings.path(settings.node.data)
    if has_users(data):
        raise ConfigError(f"the node in {data} has users: run it with kt node, and each process by itself")


def _refuse_other_log(settings: Settings) -> None:
    """Refuse a directory that is in another event log, because it must not begin again in this node."""
    listen = address(settings.node.listen, "node.listen")
    target = settings.log.partition("://")[2].partition("?")[0].rpartition("@")[2]
    try:
        # Both client libraries use port 2113 if the address has none.
        at = Address.parse(target if target.rpartition(":")[2].isdigit() else f"{target}:2113")
    except ValueError:
        at = None
    same_host = at is not None and (
        at.host == listen.host or (is_loopback(at.host) and is_loopback(listen.host))
    )
    if at is None or not same_host or listen.port not in (0, at.port):
        raise ConfigError(
            f"{settings.base / FILE_NAME} says log = {without_password(settings.log)!r}, which is not its "
            f"own node (node.listen = {settings.node.listen!r}): kt up runs a directory "
            "over its own node alone; run kt signer, kt frontend and kt monitor for this one"
        )


@contextmanager
def locked(data: Path) -> Iterator[None]:
    """Lock the data directory for this ``kt up``.

    Each process locks its own data too, but a second supervisor would restart its processes over and over,
    and replace the state file of the first one.

    Raises:
        LockedError: another ``kt up`` has the lock.
    """
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = os.open(data / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if is_full(error):
            raise DiskFullError(data) from None
        raise ConfigError(f"{data} cannot be used as a data directory: {error.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(f"{data} is in use by another process: kt up runs there already") from None
        yield
    finally:
        os.close(lock)
