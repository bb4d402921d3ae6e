"""``kt receipt``: what became of a submitted change, with the proof of the decision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kt_es.api.statuses import SubmissionState
from kt_es.cli.options import FILE, Reach, proof_option, reach_options, until_fresh
from kt_es.cli.output import Output, output_of
from kt_es.cli.owners.signing import read_receipt_file
from kt_es.cli.policies import show_vouched
from kt_es.client.changes import Submission
from kt_es.client.statuses import SubmissionStatus
from kt_es.errors import ConfigError, RefusedError
from kt_es.formats.queue import Verdict

REFUSED, CANNOT_TELL = 1, 7
"""Exit codes."""

_MEANINGS = {
    Verdict.STALE.label: "it does not follow the version that stood then",
    Verdict.CONFLICT.label: "another change came first in the same epoch",
    Verdict.UNAUTHORIZED.label: "a signature was missing or invalid",
}


@click.command("receipt")
@click.argument("file", type=FILE)
@click.option("--send-again", is_flag=True, help="First submit the same change again, which is safe.")
@reach_options
@proof_option
@click.pass_context
def receipt_command(context: click.Context, /, file: Path, send_again: bool, **reach: Any) -> int:
    """Say what became of the change in FILE, which `kt put --receipt FILE` has kept.

    A decision is verified against the log of the directory. Ends with 0 if the change was accepted, with 1 if
    it was refused, and with 7 while nothing is decided or if the server does not know the change.
    """
    output, kept = output_of(context), read_receipt_file(file)
    submission = Submission(kept.label, kept.mutation, kept.opening, kept.profile)
    with Reach(**reach).client(on_stale=until_fresh(output)) as client:
        origin = client.trusted().origin
        if origin != kept.origin:
            raise ConfigError(
                f"{file} is a receipt of {kept.origin}, and the server is of {origin}: name its own"
            )
        if send_again:
            try:
                client.submit(submission)
            except RefusedError as error:
                # Its record may say that it was accepted, or refused before.
                output.note(f"  it was not taken again: {error}")
        status = client.status(submission)
        vouched = show_vouched(output, client)
    return _show(output, submission, status, vouched)


def _show(output: Output, submission: Submission, status: SubmissionStatus, vouched: dict[str, Any]) -> int:
    """Print ``status`` and return the exit code."""
    what = f"version {submission.mutation.entry.version} of {submission.label}"
    where = "its map" if status.sequence is None else f"record {status.sequence} of the log of mutations"
    code = 0
    if status.took_effect and status.verdict != Verdict.ACCEPTED.label:
        output.ok(f"{what} was accepted before; it came again in epoch {status.epoch}: proven by {where}")
    elif status.took_effect:
        by = "by" if status.sequence is None else "in"
        output.ok(f"{what} was accepted {by} epoch {status.epoch}: proven by {where}")
    elif status.verdict is not None:
        meaning = _MEANINGS.get(status.verdict, "the signer did not accept it")
        output.fail(f"{what} was refused in epoch {status.epoch}: proven by {where}")
        output.fail(f"{status.verdict}: {meaning}; look the account up, and sign the next version")
        code = REFUSED
    elif status.state is SubmissionState.PENDING:
        output.note(f"{what} waits in the queue, says the server: epoch {status.epoch} has not decided it")
        code = CANNOT_TELL
    else:
        output.fail(
            f"the server does not know {what}: neither epoch {status.epoch} nor the queue has it. "
            "Submit it again with --send-again"
        )
        if status.complete_from:
            output.note(f"  what was decided before record {status.complete_from} is unknown there")
        code = CANNOT_TELL
    document = {
        "label": submission.label,
        "version": submission.mutation.entry.version,
        "mutation": status.mutation,
        "state": status.state.value,
        "epoch": status.epoch,
        "verdict": status.verdict,
        "record": status.sequence,
        "accepted": status.took_effect,
        **vouched,
    }
    output.data(document, [])
    return code
