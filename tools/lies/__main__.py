"""``python -m tools.lies``: tell every lie, print the result of each, and fail if one was not caught."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from tools.lies.catalogue import load
from tools.lies.registry import SCENES, Lie, Scene, table
from tools.lies.running import LieVerdict, run


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", multiple=True, metavar="TEXT", help="Lies whose name or scene has TEXT; repeatable.")
@click.option("--list", "list_", is_flag=True, help="Print the rows of the table in docs/THREATS.md.")
@click.option("--jobs", type=click.IntRange(1), default=3, show_default=True, help="How many at a time.")
@click.option("--json", "report", type=click.Path(path_type=Path, dir_okay=False), help="Write a report.")
def main(only: tuple[str, ...], list_: bool, jobs: int, report: Path | None) -> None:
    """Tell lies to the real ``kt`` commands."""
    load()
    if list_:
        click.echo("\n".join(table()))
        return
    began = time.monotonic()
    verdicts = []
    for verdict in run(chosen(only), jobs):
        verdicts.append(verdict)
        click.echo(_line(verdict))
    if report is not None:
        report.write_text(json.dumps([_document(verdict) for verdict in verdicts], indent=1) + "\n")
    sys.exit(_summary(verdicts, time.monotonic() - began))


def chosen(only: tuple[str, ...]) -> list[tuple[Scene, Lie | None]]:
    """Return the lies named in ``only``, or all. The control of a scene comes before its lies."""
    found: list[tuple[Scene, Lie | None]] = []
    for scene in SCENES:
        lies = [
            one
            for one in scene.lies
            if not only or any(text in one.name or text in scene.name for text in only)
        ]
        if lies:
            found += [(scene, None), *((scene, one) for one in lies)]
    return found


def _line(verdict: LieVerdict) -> str:
    one = verdict.lie
    command = "" if one is None else f"  told to {one.command}"
    seen = "nothing" if verdict.code is None else verdict.code
    line = f"{verdict.word:<14} {verdict.name}{command}  expected {verdict.expected}, saw {seen}"
    reason = verdict.problem or verdict.message.partition("\n")[0]
    return f"{line}  {reason}"


def _document(verdict: LieVerdict) -> dict[str, Any]:
    return {
        "name": verdict.name,
        "control": verdict.lie is None,
        "command": None if verdict.lie is None else verdict.lie.command,
        "expected": verdict.expected,
        "seen": verdict.code,
        "message": verdict.message,
        "caught": verdict.passed,
        "problem": verdict.problem,
        "seconds": round(verdict.seconds, 2),
    }


def _summary(verdicts: list[LieVerdict], seconds: float) -> int:
    lies = [verdict for verdict in verdicts if verdict.lie is not None]
    controls = [verdict for verdict in verdicts if verdict.lie is None]
    caught = sum(verdict.passed for verdict in lies)
    passed = sum(verdict.passed for verdict in controls)
    click.echo(f"{caught} of {len(lies)} lies caught")
    click.echo(f"{passed} of {len(controls)} controls passed, all in {seconds:.0f} s")
    return 0 if verdicts and caught + passed == len(verdicts) else 1


if __name__ == "__main__":
    main()
