"""``kt``: the table of all commands, their common options, and the end of each: one line and an exit code.

A module is imported when its command runs: a lookup does not wait for the import of a server, and
``kt --help`` imports none. A command whose extra is not installed is listed too, and says what to install.

Exit codes: 0 ok, 1 failure, 2 usage, 3 proven absent, 4 verification failed, 5 contradiction proven,
6 a watched account changed and it was not you, 7 cannot tell (stale, outage, clock),
8 too few witnesses or monitors vouch for what was shown.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import structlog

from kt_es import __version__
from kt_es.cli.options import JSON_HELP, NEW_FILE, QUIET_HELP, wants_json, with_common_options
from kt_es.cli.output import FAILED, LOGS, Output, configure_logs, failure, say
from kt_es.errors import ConfigError, DiskFullError, EquivocationError, KtError
from kt_es.extras import missing, require
from kt_es.formats.evidence import armored
from kt_es.process.clock import collect_rarely
from kt_es.process.log_filters import without_password
from kt_es.process.logs import takes_words, words
from kt_es.process.signals import listen
from kt_es.process.space import forgive_full_disk, is_full

_LOG = structlog.get_logger("kt_es.cli")

# Commands that run until they are stopped. Neither SIGHUP nor a full disk under their log ends them.
_SERVING = {"cosign", "export", "frontend", "monitor", "node", "signer", "up", "watch", "witness"}


@dataclass(frozen=True, slots=True)
class CommandEntry:
    """A command, which ``module`` holds as ``<name>_command``. Without ``extra`` it is always installed."""

    module: str
    summary: str
    extra: str | None = None


def _server(module: str, summary: str) -> CommandEntry:
    return CommandEntry(module, summary, "server")


COMMANDS: Mapping[str, CommandEntry] = {
    "audit": _server("kt_es.cli.auditors.audit", "Replay and verify both logs from the start."),
    "bench": _server("kt_es.cli.trials.bench", "Measure the map, signer, node, monitor and front ends."),
    "checkpoint": CommandEntry("kt_es.cli.people.history", "Print the latest checkpoint of a log, verified."),
    "cosign": _server("kt_es.cli.operators.cosigning", "Ask witnesses to cosign the logs of a directory."),
    "config": _server("kt_es.cli.operators.configuring", "Show or change the signed config of a directory."),
    "demo": _server("kt_es.cli.trials.demo", "Run the whole system on real keys, and catch lies."),
    "epochs": CommandEntry("kt_es.cli.people.history", "List the latest epochs, each head verified."),
    "erase": CommandEntry("kt_es.cli.owners.erase", "Erase what an account published."),
    "export": _server("kt_es.cli.auditors.export", "Write both logs to files for any web server."),
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
    "receipt": CommandEntry("kt_es.cli.owners.receipt", "Say what became of a submitted change."),
    "register": CommandEntry("kt_es.cli.owners.register", "Get leave to register a new account."),
    "registration": _server("kt_es.cli.operators.registration", "Hand out tokens for new accounts."),
    "revoke": CommandEntry("kt_es.cli.owners.put", "Take signing keys off an account."),
    "signer": _server("kt_es.cli.operators.processes", "Run the signer, or a standby of it."),
    "snapshot": _server("kt_es.cli.operators.snapshot", "Save the state of a signer, or begin with one."),
    "status": _server("kt_es.cli.operators.status", "Show the state of a directory and its processes."),
    "store": _server(
        "kt_es.cli.operators.store",
        "Make, fill, prune or check a shared store or a data directory.",
    ),
    "up": _server("kt_es.cli.operators.up", "Run a whole directory on this machine."),
    "verify": CommandEntry("kt_es.cli.people.get", "Verify a saved proof or evidence, without a network."),
    "witness": _server(
        "kt_es.cli.operators.witnessing", "Cosign checkpoints of logs, as a C2SP tlog-witness."
    ),
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
    """Return a stand-in for the command ``name``, which takes any words and names the missing ``extra``."""
    return click.Command(
        name,
        context_settings={"ignore_unknown_options": True},
        callback=lambda words: require(extra, f"kt {name}"),
        params=[click.Argument(["words"], nargs=-1, type=click.UNPROCESSED, metavar="...")],
        add_help_option=False,
    )


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands of ``kt --help``. Those whose extra is missing come last."""
        found = sorted(COMMANDS.items())
        extras = dict.fromkeys(entry.extra for _, entry in found if entry.extra is not None)
        lacking = [extra for extra in extras if missing(extra) is not None]
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in found if entry.extra not in lacking])
        for extra in lacking:
            with formatter.section(f"Not installed, see pip install 'kt-es[{extra}]'"):
                formatter.write_dl([(name, entry.summary) for name, entry in found if entry.extra == extra])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] in _SERVING:
            # Handle SIGHUP now, because the import of the command's module takes time.
            listen()
            forgive_full_disk()
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = load(cmd_name)
        prefix = f"KT_{cmd_name.upper().replace('-', '_')}"
        return None if found is None else with_common_options(found, prefix)


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option(
    "-c",
    "--config",
    type=NEW_FILE,
    default=Path("kt.toml"),
    show_default=True,
    help="The directory's kt.toml, for the commands that run or inspect it.",
)
@click.option("--json", "as_json", is_flag=True, envvar=["KT_JSON", "KT_AS_JSON"], help=JSON_HELP)
@click.option("-q", "--quiet", is_flag=True, help=QUIET_HELP)
@click.option(
    "--logs",
    type=click.Choice(LOGS),
    default=LOGS[0],
    show_default=True,
    help="Logs of a process: lines on a terminal and JSON elsewhere; JSON; or problems alone.",
)
@click.version_option(__version__, prog_name="kt")
@click.pass_context
def cli(context: click.Context, config: Path, as_json: bool, quiet: bool, logs: str) -> None:
    """Key transparency over EventStoreDB: look up, publish, run and audit a directory of public keys."""
    context.ensure_object(dict).update(config=config, output=Output(as_json, quiet), logs=logs)
    # A command that runs until it is stopped configures its log again, under its own name.
    configure_logs("kt", "json" if logs == "json" else "problems", serves=False)


def main() -> None:
    """Run ``kt`` and exit with the codes of docs/DESIGN.md, section 9; only KT_DEBUG shows a traceback."""
    collect_rarely()
    # gRPC would print its own messages for failures that our errors describe in one line.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    run: dict[str, Any] = {}
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - for as long as the process lives
    if sys.stdout is None:
        sys.stdout = _Closed()
    try:
        result = cli.main(prog_name="kt", auto_envvar_prefix="KT", standalone_mode=False, obj=run)
        code = result if isinstance(result, int) else 0
    except KtError as error:
        code = _failed(run, error.exit_code, str(error), error)
        if isinstance(error, EquivocationError):
            _show_evidence(error)
    except click.exceptions.Abort:
        code = _failed(run, 1, "interrupted")
    except click.exceptions.NoArgsIsHelpError as error:
        # The message is the whole help text.
        click.echo(error.format_message(), file=words())
        code = _failed(run, error.exit_code, "no command is named: name one of these")
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(f"{error.ctx.get_usage()}\nTry '{error.ctx.command_path} --help'.", file=words())
        code = _failed(run, error.exit_code, error.format_message())
    except BrokenPipeError:
        # The reader has closed our output, so nothing more can be printed.
        _leave_output()
        code = 1
    except Exception as error:  # a bug of ours: a person gets a line, KT_DEBUG the traceback
        if isinstance(error, OSError) and is_full(error):
            full = DiskFullError(_full_path(error))
            sys.exit(_failed(run, full.exit_code, str(full), full))
        if os.environ.get("KT_DEBUG"):
            raise
        problem = f"internal error, please report it: {type(error).__name__}: {error}"
        code = _failed(run, 1, f"{problem} (KT_DEBUG=1 shows where)")
    sys.exit(code)


def _full_path(error: OSError) -> Path:
    """Return the file that is full: the file in the error, standard output, or the temporary folder."""
    if error.filename:
        return Path(error.filename)
    try:
        sys.stdout.flush()
    except OSError:
        # The text that could not be printed is still in the buffer.
        _leave_output()
        return Path("standard output")
    return Path(tempfile.gettempdir())


def _leave_output() -> None:
    """Discard buffered output. Otherwise the interpreter would fail when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Closed(io.TextIOBase):
    """Standard output that the caller has closed. Printing to it must not fail silently."""

    def write(self, _: str) -> int:
        raise ConfigError("standard output is closed, so nothing can be printed: redirect it to a file")


def _failed(run: Mapping[str, Any], code: int, problem: str, error: KtError | None = None) -> int:
    """Report a failure on standard error, and with ``--json`` in the document, if none was printed."""
    problem = without_password(problem)
    say(problem, FAILED, "red")
    output = run.get("output") or Output()
    # A wrong command line is refused before all of its options are read.
    output.json = output.json or wants_json(sys.argv[1:])
    if output.json and not output.has_data:
        output.data({"error": failure(code, problem, error)}, [])
    return code


def _show_evidence(error: EquivocationError) -> None:
    """Print where the evidence is, or the evidence itself if it could not be saved."""
    if error.saved is not None:
        say(f"  the evidence is in {error.saved}; `kt verify` confirms it")
    elif error.evidence is not None:
        say("  the evidence is in no file yet: save these lines in one, `kt verify` reads them:")
        # Complete and unescaped, whatever its length.
        if takes_words():
            _LOG.error("evidence", armored=armored(error.evidence))
        else:
            click.echo(armored(error.evidence), file=words())


if __name__ == "__main__":
    main()
