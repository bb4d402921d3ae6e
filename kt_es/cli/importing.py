"""``kt import``: a file of real keys becomes accounts of the directory."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from kt_es.cli.clients import CHANGE_TIMEOUT, Reach, keys_option, reach_options, signing_keys
from kt_es.cli.context import output_of
from kt_es.cli.output import Output, is_terminal
from kt_es.cli.seconds import Seconds
from kt_es.cli.waiting import until_fresh
from kt_es.client.bulk import BulkReport, Progress, Wanted, publish_all
from kt_es.client.client import Client
from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import KtError
from kt_es.importers.accounts import ImportPlan
from kt_es.importers.openpgp import read_openpgp
from kt_es.importers.pem import read_pem
from kt_es.importers.ssh import read_ssh

KINDS = ("openpgp", "ssh", "pem")
SHOWN = 20


def read_plan(kind: str, file: Path, policy: str) -> ImportPlan:
    """What ``file`` would publish in a directory of this label policy."""
    if kind == "openpgp":
        return read_openpgp(file)
    if kind == "ssh":
        return read_ssh(file, policy)
    return read_pem(file, policy)


@click.command("import")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--dry-run", is_flag=True, help="Only say what would be published and skipped.")
@click.option("--jobs", type=click.IntRange(1, 64), default=8, show_default=True, help="Requests at a time.")
@click.option("--sign-with", "names", multiple=True, metavar="NAME", help="Signing keys of the new accounts.")
@click.option(
    "--patience",
    type=Seconds(1),
    default=600.0,
    show_default=True,
    help="Seconds to wait while the server is away, has too much to do, or has no fresh head.",
)
@keys_option
@reach_options
@click.pass_context
def import_command(
    context: click.Context,
    /,
    kind: str,
    file: Path,
    dry_run: bool,
    jobs: int,
    names: tuple[str, ...],
    patience: float,
    keys: Path,
    **reach: Any,
) -> int:
    """Publish the keys in FILE, one account for each address or name in it.

    KIND is openpgp (a keyring), ssh (authorized_keys or allowed_signers) or pem (certificates).
    Run it again after an interruption: what stands already is left alone.
    """
    output = output_of(context)
    reached = Reach(**reach)
    with reached.client(jobs, CHANGE_TIMEOUT, until_fresh(output)) as client:
        policy = client.directory(timeout=patience).label_policy
        plan = read_plan(kind, file, policy)
        if dry_run:
            report = BulkReport(0, 0, [])
            seconds = 0.0
        else:
            private = [key.private for key in signing_keys(keys, names)]
            started = time.monotonic()
            report = publish_plan(output, client, plan, private, jobs=jobs, patience=patience)
            seconds = time.monotonic() - started
    show_summary(output, plan, report)
    output.data(
        {
            "accounts": len(plan.accounts),
            "keys": plan.keys,
            "published": report.published,
            "unchanged": report.unchanged,
            "refused": len(report.refused),
            "skipped": len(plan.skipped),
            "seconds": round(seconds, 3),
        },
        [
            f"{plan.keys} keys, {len(plan.accounts)} accounts: {report.published} published, "
            f"{report.unchanged} unchanged, {len(report.refused)} refused, {len(plan.skipped)} skipped"
        ],
    )
    if report.refused:
        raise KtError(f"{len(report.refused)} accounts were refused; the reasons stand above")
    return 0


def publish_plan(
    output: Output, client: Client, plan: ImportPlan, keys: list[PrivateKey], *, jobs: int, patience: float
) -> BulkReport:
    """``publish_all`` under two progress bars; what is submitted and what is proven to stand."""
    accounts = (Wanted(account.label, account.keys) for account in plan.accounts)
    hidden = output.quiet or not is_terminal()
    with (
        click.progressbar(
            length=len(plan.accounts), label="submitted", file=sys.stderr, hidden=hidden
        ) as sent,
        click.progressbar(
            length=len(plan.accounts), label="verified ", file=sys.stderr, hidden=hidden
        ) as stood,
    ):
        return publish_all(
            client, accounts, keys, Progress(_step(sent), _step(stood)), jobs=jobs, patience=patience
        )


def _step(bar: Any) -> Callable[[], None]:
    return lambda: bar.update(1)


def show_summary(output: Output, plan: ImportPlan, report: BulkReport) -> None:
    """What was skipped and refused, by reason; the first few by name, on the user's terminal alone."""
    for reason, count in Counter(skipped.reason for skipped in plan.skipped).most_common():
        output.note(f"  skipped {count}: {reason}")
    for label, problem in report.refused[:SHOWN]:
        output.fail(f"{label}: {problem}")
    if len(report.refused) > SHOWN:
        output.note(f"  and {len(report.refused) - SHOWN} more")
    if plan.revoked:
        output.note(f"  {plan.revoked} keys carry their own revocation and were published with it")
