"""``kt node``: the embedded event log, run alone, and its users."""

from __future__ import annotations

from pathlib import Path

import click

from kt_es.cli.context import output_of
from kt_es.cli.logs import configure_logs
from kt_es.cli.operate import address
from kt_es.cli.supervisor import end_with_parent
from kt_es.errors import ConfigError

_DIRECTORY = click.Path(path_type=Path, file_okay=False)


@click.group("node", invoke_without_command=True)
@click.option("--data", type=_DIRECTORY, help="Its data.")
@click.option("--listen", default="127.0.0.1:2113", show_default=True, metavar="HOST:PORT")
@click.pass_context
def node_command(context: click.Context, data: Path | None, listen: str) -> None:
    """Run the embedded event log alone, with --data; or one of the commands below."""
    if context.invoked_subcommand is not None:
        return
    if data is None:
        raise ConfigError("kt node needs --data DIR")
    from kt_es.node.server import NodeConfig, run

    configure_logs("node")
    end_with_parent()
    output = output_of(context)
    where = address(listen)
    run(
        NodeConfig(data=data, host=where.host, port=where.port),
        lambda at: output.ok(f"listening on esdb://{at}?Tls=false"),
    )
