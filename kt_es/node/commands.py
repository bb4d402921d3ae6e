"""``kt node``: run the embedded event log alone, or maintain its data and its users.

This module stands above ``kt_es.cli``, which finds the commands by name.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from getpass import getpass
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from kt_es.cli.addresses import address
from kt_es.cli.options import Number
from kt_es.cli.output import Output, config_path, configure_logs, logs_of, output_of, stop_on_signals
from kt_es.cli.supervisor import tell_parent
from kt_es.config.settings import load_settings
from kt_es.errors import ConfigError, KtError
from kt_es.node.limits import BOUNDS, MAX_INT, Bound, NodeLimits, spelled

_DIRECTORY = click.Path(path_type=Path, file_okay=False)
_EXISTING = click.Path(path_type=Path, file_okay=False, exists=True)
_FILE = click.Path(path_type=Path)
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def data_option(kind: click.Path, text: str = "The node's data.") -> Callable[[Decorated], Decorated]:
    """``--data`` of a command below ``kt node``: the command's own, or the one given to ``kt node``."""

    def inherited(context: click.Context, option: click.Parameter, value: Any) -> Any:
        above = context.parent
        while value is None and above is not None:
            value = above.params.get("data")
            above = above.parent
        if value is None:
            raise click.MissingParameter(ctx=context, param=option)
        # Convert again: the option of ``kt node`` need not exist, while this command may need it to.
        return kind.convert(value, option, context)

    return click.option("--data", type=kind, callback=inherited, help=f"{text}  [required]")


def check_data(data: Path, output: Output) -> None:
    """Check all data of a stopped node, and print the report; raise ``DamageError`` if there are problems."""
    from kt_es.node.ops.checking import check
    from kt_es.node.store.storage import DamageError

    report = check(data)
    output.data({"sound": report.sound, **asdict(report)}, report.problems)
    if not report.sound:
        raise DamageError(f"{data}: {report.found} problems, the first: {report.problems[0]}")
    output.ok(f"{report.events} events in {report.streams} streams, up to position {report.position}")
    output.ok(f"{report.groups} persistent subscriptions")


def _limit_options(command: Decorated) -> Decorated:
    """An option for each limit, with the node's own default."""
    defaults = NodeLimits()
    for name, bound in reversed(list(BOUNDS.items())):
        option = click.option(
            f"--{spelled(name)}",
            type=_range(bound, getattr(defaults, name)),
            default=getattr(defaults, name),
            show_default=True,
            metavar=bound.unit,
            help=bound.help,
        )
        command = option(command)
    return command


def _range(bound: Bound, default: float) -> click.IntRange | Number:
    if isinstance(default, int):
        return click.IntRange(int(bound.low), None if bound.high == MAX_INT else int(bound.high))
    return Number(bound.low, bound.high)


def _refuse_options_of_running(context: click.Context, command: str, but: Sequence[str] = ("data",)) -> None:
    """Raise ``UsageError`` for an option that was given to ``kt node`` and that ``command`` ignores.

    ``but`` names the options that ``command`` uses.
    """
    for option in context.command.params:
        name = option.name or ""
        if (
            name not in but
            and option.expose_value
            and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        ):
            raise click.UsageError(
                f"{option.opts[0]} is for a node that is to run, not for {command}", context
            )


@click.group("node", invoke_without_command=True)
@click.option("--data", type=_DIRECTORY, help="Its data.")
@click.option("--listen", default="127.0.0.1:2113", show_default=True, metavar="HOST:PORT")
@click.option("--tls-cert", type=_FILE, help="Certificate in PEM, with those between it and its root.")
@click.option("--tls-key", type=_FILE, help="Its private key in PEM.")
@click.option("--anonymous", is_flag=True, help="On loopback: who does not log in counts as $all.")
@click.option("--http", metavar="HOST:PORT", help="Serve /metrics and /healthz there; default not.")
@click.option("--check", "checking", is_flag=True, help="Check the data of a stopped node instead.")
@_limit_options
@click.pass_context
def node_command(  # noqa: PLR0917  a command has as many parameters as options
    context: click.Context,
    /,
    data: Path | None,
    listen: str,
    tls_cert: Path | None,
    tls_key: Path | None,
    anonymous: bool,
    http: str | None,
    checking: bool,
    **limits: Any,
) -> None:
    """Run the embedded event log alone, with --data; or one of the commands below.

    A limit that is not given is that of [node] in kt.toml, if there is one. SIGHUP has the node read
    certificate and limits again.
    """
    if context.invoked_subcommand is not None:
        _refuse_options_of_running(context, context.invoked_subcommand)
        return
    if data is None:
        raise ConfigError("kt node needs --data DIR: name the directory for the streams")
    if checking:
        _refuse_options_of_running(context, "--check", but=("data", "checking"))
        check_data(data, output_of(context))
        return
    from kt_es.node.server import NodeConfig, serve

    configure_logs("node", logs_of(context))
    stop = stop_on_signals()
    output = output_of(context)
    where = address(listen, "--listen")
    ops = None if http is None else address(http, "--http")
    # The others are defaults, before which those of kt.toml go.
    given = {
        name: value
        for name, value in limits.items()
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }

    def read() -> NodeConfig:
        file = config_path(context)
        configured = load_settings(file).node.limits if file.exists() else {}
        return NodeConfig(
            data,
            where.host,
            where.port,
            tls_cert=tls_cert,
            tls_key=tls_key,
            anonymous=anonymous,
            http=None if ops is None else (ops.host, ops.port),
            limits=NodeLimits(**{**configured, **given}),
        )

    login, query = ("", "Tls=false") if tls_cert is None else ("USER:PASSWORD@", "Tls=true&TlsCaFile=CA.crt")

    def ready(at: str) -> None:
        tell_parent()
        output.ok(f"listening on esdb://{login}{at}?{query}")

    serve(read(), stop, read, ready)


@node_command.command("backup")
@click.argument("target", type=_DIRECTORY)
@data_option(_EXISTING)
@click.pass_context
def backup_command(context: click.Context, target: Path, data: Path) -> None:
    """Copy the node's data to the new directory TARGET, on the node's machine; it may go on running."""
    from kt_es.node.ops.control import backup_of

    made = backup_of(data, target)
    output_of(context).data({"backup": str(target), **made}, [])
    output_of(context).ok(f"{target} has everything up to position {made['position']}: {_mb(made['bytes'])}")


@node_command.command("restore")
@click.argument("source", type=_EXISTING)
@data_option(_DIRECTORY, "Where to, absent or empty.")
@click.pass_context
def restore_command(context: click.Context, source: Path, data: Path) -> None:
    """Make a node's data from the backup SOURCE, and check them."""
    from kt_es.node.ops.backup import restore

    made = restore(source, data)
    try:
        check_data(data, output_of(context))
    except KtError:
        shutil.rmtree(data, ignore_errors=True)
        raise
    output_of(context).ok(f"restored to {data} what {source} has of {made.made_at}")


@node_command.command("scavenge")
@data_option(_EXISTING)
@click.pass_context
def scavenge_command(context: click.Context, data: Path) -> None:
    """Take off the disk what reads no longer show: deleted, truncated and expired events.

    The node may go on running.
    """
    from kt_es.node.ops.control import scavenge_of

    done = scavenge_of(data)
    output = output_of(context)
    output.data(done, [])
    output.ok(f"removed {done['events']} events of {done['streams']} streams: {_mb(done['bytes'])}")
    output.ok(f"on disk {_mb(done['disk_after'])} instead of {_mb(done['disk_before'])}")


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


@node_command.group("user")
def user_group() -> None:
    """The users who may log in; a running node sees changes at once."""


@user_group.command("add")
@data_option(_DIRECTORY)
@click.option("--group", "groups", multiple=True, metavar="G", help="$admins, $ops or your own; repeatable.")
@click.argument("name")
@click.pass_context
def user_add(context: click.Context, data: Path, groups: tuple[str, ...], name: str) -> None:
    """Add user NAME, or give it another password and other groups.

    The password is read from standard input, or asked for on a terminal.
    """
    from kt_es.node.access.users import add, check_name

    check_name(name)
    is_new = add(data, name, _password(name), groups)
    output_of(context).ok(f"{'added' if is_new else 'changed'} user {name}")


def _password(name: str) -> str:
    stdin = sys.stdin
    if not stdin.isatty():
        return stdin.readline().removesuffix("\n").removesuffix("\r")
    password = getpass(f"Password of {name}: ")
    if getpass("Once more: ") != password:
        raise ConfigError(f"the two passwords for {name} differ: start again")
    return password


@user_group.command("remove")
@data_option(_DIRECTORY)
@click.argument("name")
@click.pass_context
def user_remove(context: click.Context, data: Path, name: str) -> None:
    """Remove user NAME."""
    from kt_es.node.access.users import remove

    remove(data, name)
    output_of(context).ok(f"removed user {name}")


@user_group.command("list")
@data_option(_DIRECTORY)
@click.pass_context
def user_list(context: click.Context, data: Path) -> None:
    """The users and their groups."""
    from kt_es.node.access.users import load

    users = load(data)
    output = output_of(context)
    if not users:
        output.note(f"{data} has no users" if users is None else f"{data} has no users any more")
    groups = {name: sorted(user.groups) for name, user in sorted((users or {}).items())}
    output.data({"users": groups}, [" ".join((name, *of)) for name, of in groups.items()])
