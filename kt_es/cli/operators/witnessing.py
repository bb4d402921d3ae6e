"""``kt witness``: cosign the checkpoints of logs that continue what was seen of them before."""

from __future__ import annotations

from pathlib import Path

import click

from kt_es.cli.addresses import address
from kt_es.cli.operators.processes import metrics_at
from kt_es.cli.options import FILE, NEW_FOLDER
from kt_es.cli.output import configure_logs, logs_of, output_of, stop_on_signals
from kt_es.witness.logs import known_logs
from kt_es.witness.service import WitnessSettings, serve
from kt_es.witness.state import opened


@click.command("witness")
@click.option(
    "--data",
    type=NEW_FOLDER,
    default=Path("witness"),
    show_default=True,
    help="Folder with the key and what was cosigned. They belong together: never restore it from a backup.",
)
@click.option("--name", help="Key name of a new witness, such as witness.example.org/w1.")
@click.option(
    "--log", "vkeys", multiple=True, metavar="VKEY", help="Key of a log to cosign; may be repeated."
)
@click.option(
    "--logs",
    "lists",
    type=FILE,
    multiple=True,
    help="C2SP tlog-list of logs to cosign, such as kt cosign --describe prints; may be repeated.",
)
@click.option(
    "--listen", default="127.0.0.1:7380", show_default=True, metavar="HOST:PORT", help="Where to serve."
)
@click.option("--metrics", metavar="HOST:PORT", help="Serve metrics for Prometheus.")
@click.option("--tls-cert", type=FILE, help="Serve HTTPS: the certificate in PEM, with its intermediates.")
@click.option("--tls-key", type=FILE, help="The certificate's private key in PEM.")
@click.option(
    "--ml-dsa", is_flag=True, help="Cosign with a key of ML-DSA-44 as well, which is made if there is none."
)
@click.option("--show-key", is_flag=True, help="Make the key if there is none, print the vkey, and end.")
@click.pass_context
def witness_command(
    context: click.Context,
    data: Path,
    name: str | None,
    vkeys: tuple[str, ...],
    lists: tuple[Path, ...],
    listen: str,
    metrics: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    ml_dsa: bool,
    show_key: bool,
) -> None:
    """Run a witness (C2SP tlog-witness) for logs of kt-es and others, until stopped.

    It cosigns a checkpoint that its log has signed if a proof shows that it continues the one before. Its
    submission and monitoring prefix is where it listens. On SIGHUP it reads --logs and its certificate again.
    """
    if show_key:
        with opened(data, name, ml_dsa=ml_dsa) as identity:
            vkeys = tuple(key.vkey for key in identity.keys)
        output_of(context).data({"name": identity.name, "vkeys": list(vkeys)}, vkeys)
        return
    configure_logs("witness", logs_of(context))

    def read() -> WitnessSettings:
        where = address(listen)
        return WitnessSettings(
            data,
            name,
            known_logs(vkeys, lists),
            where.host,
            where.port,
            metrics=metrics_at(metrics),
            tls_cert=tls_cert,
            tls_key=tls_key,
            ml_dsa=ml_dsa,
        )

    serve(read(), stop_on_signals(), read)
