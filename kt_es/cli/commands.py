"""The table of all commands of ``kt``: module, extra, and the line in ``kt --help``.

A module is imported when its command runs: a lookup does not wait for the import of a server, and
``kt --help`` imports none. A command whose extra is not installed is listed too, and says what to install.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

import click

from kt_es.extras import missing, require

SERVER = "server"


@dataclass(frozen=True, slots=True)
class CommandEntry:
    """A command, which ``module`` holds as ``<name>_command``. Without ``extra`` it is always installed."""

    module: str
    summary: str
    extra: str | None = None


def _server(module: str, summary: str) -> CommandEntry:
    return CommandEntry(module, summary, SERVER)


COMMANDS: Mapping[str, CommandEntry] = {
    "audit": _server("kt_es.cli.auditors.audit", "Replay and verify both logs from the start."),
    "bench": _server("kt_es.cli.trials.bench", "Measure the map, the signer, the node and recovery."),
    "checkpoint": CommandEntry("kt_es.cli.people.history", "Print the latest checkpoint of a log, verified."),
    "config": _server("kt_es.cli.operators.configuring", "Show or change the signed config of a directory."),
    "demo": _server("kt_es.cli.trials.demo", "Run the whole system on real keys, and catch lies."),
    "epochs": CommandEntry("kt_es.cli.people.history", "List the latest epochs, each head verified."),
    "erase": CommandEntry("kt_es.cli.owners.erase", "Erase what an account published."),
    "frontend": _server("kt_es.cli.operators.processes", "Serve lookups and submissions over HTTP."),
    "fsck": _server("kt_es.cli.auditors.fsck", "Examine the data of a signer, front end or monitor."),
    "get": CommandEntry("kt_es.cli.people.get", "Look up an account, verify everything, print its keys."),
    "history": CommandEntry("kt_es.cli.people.history", "List every version of an account, verified."),
    "import": CommandEntry("kt_es.cli.owners.importing", "Publish the keys in a file (OpenPGP, SSH, PEM)."),
    "init": _server("kt_es.cli.operators.init", "Make a directory: keys, kt.toml, the first config."),
    "keys": CommandEntry("kt_es.cli.owners.keys", "Make and list your signing keys."),
    "monitor": _server(
        "kt_es.cli.operators.processes", "Verify both logs as they grow; alarm if they differ."
    ),
    "node": _server("kt_es.node.commands", "Run or maintain the embedded event log."),
    "put": CommandEntry("kt_es.cli.owners.put", "Publish an account's keys or change them."),
    "revoke": CommandEntry("kt_es.cli.owners.revoke", "Take signing keys off an account."),
    "signer": _server("kt_es.cli.operators.processes", "Run the signer, or a standby of it."),
    "snapshot": _server("kt_es.cli.operators.snapshot", "Save the state of a signer, or begin with one."),
    "status": _server("kt_es.cli.operators.status", "Show the state of a directory and its processes."),
    "up": _server("kt_es.cli.operators.up", "Run a whole directory on this machine."),
    "verify": CommandEntry("kt_es.cli.people.verify", "Verify a saved proof or evidence, without a network."),
    "watch": CommandEntry("kt_es.cli.owners.watch", "Watch your accounts for changes that are not yours."),
}


def load(name: str) -> click.Command | None:
    """Return the command ``name``, or one that names the missing extra; None if there is no such command."""
    entry = COMMANDS.get(name)
    if entry is None:
        return None
    if entry.extra is not None and missing(entry.extra) is not None:
        return _without(name, entry.extra)
    found = getattr(importlib.import_module(entry.module), f"{name}_command")
    return found if isinstance(found, click.Command) else None


def _without(name: str, extra: str) -> click.Command:
    """Return a stand-in for the command ``name``, whose ``extra`` is not installed. It names the extra."""

    @click.command(
        name,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True},
    )
    @click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="...")
    def command(words: tuple[str, ...]) -> None:
        require(extra, f"kt {name}")

    return command


def write_summaries(formatter: click.HelpFormatter) -> None:
    """Write the commands of ``kt --help``. Those whose extra is missing come last, with what to install."""
    extras = dict.fromkeys(entry.extra for entry in COMMANDS.values() if entry.extra is not None)
    lacking = [extra for extra in extras if missing(extra) is not None]
    with formatter.section("Commands"):
        formatter.write_dl([(name, entry.summary) for name, entry in _sorted() if entry.extra not in lacking])
    for extra in lacking:
        with formatter.section(f"Not installed, see pip install 'kt-es[{extra}]'"):
            formatter.write_dl([(name, entry.summary) for name, entry in _sorted() if entry.extra == extra])


def _sorted() -> list[tuple[str, CommandEntry]]:
    return sorted(COMMANDS.items())
