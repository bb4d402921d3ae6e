"""``kt import``: publish the keys of a file, one account for each name in it."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click

from kt_es.cli.options import CHANGE_TIMEOUT, FILE, Number, Reach, proof_option, reach_options, until_fresh
from kt_es.cli.output import Output, output_of
from kt_es.cli.owners.keys import described, key_document, keys_option, signing_keys
from kt_es.cli.policies import show_vouched
from kt_es.client.bulk import BulkProgress, BulkReport, publish_all
from kt_es.client.client import Client
from kt_es.client.planning import BulkAction, Merging, Planned, Wanted, plan_all
from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import KtError, counted
from kt_es.extras import require
from kt_es.importers.accounts import ImportPlan, combined, lost
from kt_es.importers.openpgp import read_openpgp
from kt_es.importers.pem import read_pem
from kt_es.importers.ssh import read_ssh

MERGING = Merging(combined, lost)
KINDS = ("openpgp", "ssh", "pem")
SHOWN = 20
_ACTIONS = {
    BulkAction.NEW: "would be new, with",
    BulkAction.UNCHANGED: "would stay as it is, with",
    BulkAction.EXTENDED: "would keep its keys and have then",
    BulkAction.REPLACED: "would have only these keys and lose those marked -",
    BulkAction.REFUSED: "would be refused: ",
}


def read_plan(kind: str, file: Path, policy: str) -> ImportPlan:
    """Read what ``file`` would publish in a directory with this label policy."""
    if kind == "openpgp":
        return read_openpgp(file)
    if kind == "ssh":
        return read_ssh(file, policy)
    return read_pem(file, policy)


@click.command("import")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("file", type=FILE)
@click.option("--dry-run", is_flag=True, help="Only list what would be published and skipped.")
@click.option(
    "--replace",
    "replace_keys",
    is_flag=True,
    help="Replace all keys of an account by those of FILE; without it they are added.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=8,
    show_default=True,
    help="Requests at a time, of up to 256 accounts each.",
)
@click.option("--sign-with", "names", multiple=True, metavar="NAME", help="Signing keys of the new accounts.")
@click.option(
    "--patience",
    type=Number(1),
    default=600.0,
    show_default=True,
    help="Seconds to wait while the server is away, has too much to do, or has no fresh head.",
)
@keys_option
@proof_option
@reach_options
@click.pass_context
def import_command(
    context: click.Context,
    /,
    kind: str,
    file: Path,
    dry_run: bool,
    replace_keys: bool,
    jobs: int,
    names: tuple[str, ...],
    patience: float,
    keys: Path,
    **reach: Any,
) -> None:
    """Publish the keys in FILE, one account for each address or name in it.

    KIND is openpgp (a keyring), ssh (authorized_keys or allowed_signers) or pem (certificates).
    An account that exists keeps its keys and gets those of FILE in addition. Two copies of one certificate
    become one with the signatures of both. After an interruption run it again: it does what is missing.
    """
    output = output_of(context)
    if kind == "openpgp":
        require("openpgp", "kt import openpgp")
    report = BulkReport(0, 0, [])
    planned: list[Planned] = []
    seconds = 0.0
    with Reach(**reach).client(jobs, CHANGE_TIMEOUT, until_fresh(output)) as client:
        policy = client.directory(timeout=patience).label_policy
        plan = read_plan(kind, file, policy)
        show_skipped(output, plan, everything=dry_run)
        if dry_run:
            planned = plan_all(
                client,
                _wanted(plan),
                merging=MERGING,
                replace_keys=replace_keys,
                jobs=jobs,
                patience=patience,
            )
            show_planned(output, planned)
        else:
            show_accounts(output, plan)
            private = [key.private for key in signing_keys(keys, names)]
            started = time.monotonic()
            report = publish_plan(
                output, client, plan, private, replace_keys=replace_keys, jobs=jobs, patience=patience
            )
            seconds = time.monotonic() - started
    show_summary(output, plan, report)
    vouched = show_vouched(output, client)
    sent = "; nothing was sent. Without --dry-run" if dry_run else ""
    sentence = f"{counted(plan.keys, 'keys')}, {counted(len(plan.accounts), 'accounts')}{sent}"
    result = _result(plan, _expected(planned) if dry_run else report)
    document = _document(plan, report, planned if dry_run else None, seconds)
    output.data({**document, **vouched}, [f"{sentence}: {result}"])
    if report.refused:
        raise KtError(f"refused: {counted(len(report.refused), 'accounts')}; see the reasons above")


def _wanted(plan: ImportPlan) -> Iterator[Wanted]:
    return (Wanted(account.label, account.keys) for account in plan.accounts)


def _expected(planned: list[Planned]) -> BulkReport:
    """Return the report that the accounts of a dry run would have."""
    actions = Counter(account.action for account in planned)
    refused = [(each.label, each.problem) for each in planned if each.action is BulkAction.REFUSED]
    extended, replaced = actions[BulkAction.EXTENDED], actions[BulkAction.REPLACED]
    published = actions[BulkAction.NEW] + extended + replaced
    return BulkReport(published, actions[BulkAction.UNCHANGED], refused, extended, replaced)


def _result(plan: ImportPlan, report: BulkReport) -> str:
    return (
        f"{report.published} published ({report.extended} had keys before, {report.replaced} replaced), "
        f"{report.unchanged} unchanged, {len(report.refused)} refused, {len(plan.skipped)} skipped"
    )


def _document(
    plan: ImportPlan, report: BulkReport, planned: list[Planned] | None, seconds: float
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "accounts": len(plan.accounts),
        "keys": plan.keys,
        "published": report.published,
        "extended": report.extended,
        "replaced": report.replaced,
        "unchanged": report.unchanged,
        "refused": len(report.refused),
        "skipped": len(plan.skipped),
        "skipped_parts": [{"what": part.shown, "reason": part.reason} for part in plan.skipped],
        "seconds": round(seconds, 3),
    }
    if planned is not None:
        document["planned"] = [
            {
                "label": account.label,
                "action": account.action.value,
                "keys": [key_document(key) for key in account.profile],
                "lost": [key_document(key) for key in account.lost],
                "problem": account.problem,
            }
            for account in planned
        ]
    return document


def show_skipped(output: Output, plan: ImportPlan, *, everything: bool) -> None:
    """List the parts of the file that become no account, by number, on the user's terminal alone."""
    parts = plan.skipped if everything else plan.skipped[:SHOWN]
    for part in parts:
        output.note(f"  skipped {part.shown}: {part.reason}")
    if len(parts) < len(plan.skipped):
        output.note(f"  and {len(plan.skipped) - len(parts)} more; --dry-run lists all")


def show_accounts(output: Output, plan: ImportPlan) -> None:
    """List the first accounts with their keys, before anything is signed."""
    for account in plan.accounts[:SHOWN]:
        for key in account.keys:
            output.note(f"  {account.label}: {described(key)}")
    if len(plan.accounts) > SHOWN:
        output.note(f"  and {len(plan.accounts) - SHOWN} accounts more; --dry-run lists all")


def show_planned(output: Output, planned: list[Planned]) -> None:
    """List every account of a dry run: what would happen to it, and with which keys."""
    for account in planned:
        output.note(f"  {account.label}: {_ACTIONS[account.action]}{account.problem}")
        for key in account.profile:
            output.note(f"    {described(key)}")
        for key in account.lost:
            output.note(f"    - {described(key)}")


def publish_plan(
    output: Output,
    client: Client,
    plan: ImportPlan,
    keys: list[PrivateKey],
    *,
    replace_keys: bool = False,
    jobs: int,
    patience: float,
) -> BulkReport:
    """Run ``publish_all`` with two progress bars: accounts submitted, and accounts proven in the map."""
    hidden = output.quiet or not sys.stderr.isatty()
    bar = partial(click.progressbar, length=len(plan.accounts), file=sys.stderr, hidden=hidden)
    with bar(label="submitted") as sent, bar(label="verified ") as stood:
        return publish_all(
            client,
            _wanted(plan),
            keys,
            BulkProgress(lambda: sent.update(1), lambda: stood.update(1)),
            merging=MERGING,
            replace_keys=replace_keys,
            jobs=jobs,
            patience=patience,
        )


def show_summary(output: Output, plan: ImportPlan, report: BulkReport) -> None:
    """Count what was skipped by reason, and list the first refusals, on the user's terminal alone."""
    for reason, count in Counter(skipped.reason for skipped in plan.skipped).most_common():
        output.note(f"  skipped {count}: {reason}")
    for label, problem in report.refused[:SHOWN]:
        output.fail(f"{label}: {problem}")
    if len(report.refused) > SHOWN:
        output.note(f"  and {len(report.refused) - SHOWN} more")
    if plan.revoked:
        output.note(f"  {plan.revoked} keys carry their own revocation and were published with it")
