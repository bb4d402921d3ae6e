"""The commands of ``kt``: where each one is, which extra it needs, and its line in ``kt --help``.

A module is imported when its command runs: a lookup does not wait for the import of a server, and
``kt --help`` imports none. A command whose extra is not installed is listed like the others, and says what to
install.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

import click

from kt_es.extras import missing, require

SERVER = "server"


@dataclass(frozen=True, slots=True)
class Entry:
    """A command: ``module`` holds it as ``<name>_command``; ``extra`` is None where a client has it."""

    module: str
    summary: str
    extra: str | None = None


COMMANDS: Mapping[str, Entry] = {
    "audit": Entry("kt_es.cli.auditing", "Replay and verify both logs from the start.", SERVER),
    "bench": Entry("kt_es.cli.benching", "Measure the map, the signer, the node and recovery.", SERVER),
    "checkpoint": Entry("kt_es.cli.heads", "Print the latest checkpoint of a log, verified."),
    "config": Entry("kt_es.cli.configuring", "Show or change the signed config of a directory.", SERVER),
    "demo": Entry("kt_es.cli.demo", "Run the whole system on real keys and on lies.", SERVER),
    "epochs": Entry("kt_es.cli.heads", "List the latest epochs, each head verified."),
    "erase": Entry("kt_es.cli.erasing", "Erase what an account published."),
    "frontend": Entry("kt_es.cli.operate", "Run a front end: lookups and submissions over HTTP.", SERVER),
    "fsck": Entry("kt_es.cli.fsck", "Examine the data of a signer, front end or monitor.", SERVER),
    "get": Entry("kt_es.cli.people", "Look an account up, verify everything, print its keys."),
    "history": Entry("kt_es.cli.histories", "List every version of an account, verified."),
    "import": Entry("kt_es.cli.importing", "Publish the keys in a file (OpenPGP, SSH, PEM)."),
    "init": Entry("kt_es.cli.operate", "Make a directory: keys, kt.toml, the first config.", SERVER),
    "keys": Entry("kt_es.cli.owners", "Make and list your signing keys."),
    "monitor": Entry("kt_es.cli.operate", "Verify both logs as they grow, and alarm.", SERVER),
    "node": Entry("kt_es.node.commands.node", "Run or maintain the embedded event log.", SERVER),
    "put": Entry("kt_es.cli.owners", "Publish an account's keys or change them."),
    "revoke": Entry("kt_es.cli.revoking", "Take signing keys off an account."),
    "signer": Entry("kt_es.cli.operate", "Run the signer, or a standby of it.", SERVER),
    "snapshot": Entry("kt_es.cli.snapshot", "Save the state of a process, or begin from one.", SERVER),
    "status": Entry("kt_es.cli.status", "Show how a directory and its processes are.", SERVER),
    "up": Entry("kt_es.cli.up", "Run a whole directory on this machine.", SERVER),
    "verify": Entry("kt_es.cli.verifying", "Verify a saved proof or evidence, without a network."),
    "watch": Entry("kt_es.cli.watch", "Watch your accounts: alarm on changes that are not yours."),
}


def load(name: str) -> click.Command | None:
    """The command ``name``, or one that says which extra it needs; None if there is none of that name."""
    entry = COMMANDS.get(name)
    if entry is None:
        return None
    if entry.extra is not None and missing(entry.extra) is not None:
        return _without(name, entry.extra)
    found = getattr(importlib.import_module(entry.module), f"{name}_command")
    return found if isinstance(found, click.Command) else None


def _without(name: str, extra: str) -> click.Command:
    """The command ``name`` while ``extra`` is not installed: whatever it is asked, it names the extra."""

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
    """The commands in ``kt --help``; those whose extra is not installed apart, with what to install."""
    extras = dict.fromkeys(entry.extra for entry in COMMANDS.values() if entry.extra is not None)
    lacking = [extra for extra in extras if missing(extra) is not None]
    with formatter.section("Commands"):
        formatter.write_dl([(name, entry.summary) for name, entry in _sorted() if entry.extra not in lacking])
    for extra in lacking:
        with formatter.section(f"Not installed, see pip install 'kt-es[{extra}]'"):
            formatter.write_dl([(name, entry.summary) for name, entry in _sorted() if entry.extra == extra])


def _sorted() -> list[tuple[str, Entry]]:
    return sorted(COMMANDS.items())
