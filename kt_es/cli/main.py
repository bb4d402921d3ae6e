"""``kt``. Every option has a ``KT_*`` variable; every failure is one line and an exit code.

Exit codes: 0 ok, 1 failure, 2 usage, 3 proven absent, 4 verification failed, 5 contradiction proven,
6 a watched account changed and it was not you, 7 cannot tell (stale, outage, clock).
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import structlog

from kt_es import __version__
from kt_es.cli.commands import COMMANDS, load, write_summaries
from kt_es.cli.logs import LOGS, configure_logs
from kt_es.cli.options import wants_json, with_common_options
from kt_es.cli.output import FAILED, Output, failure, say
from kt_es.errors import ConfigError, DiskFullError, EquivocationError, KtError
from kt_es.formats.evidence import armored
from kt_es.process.log_filters import without_password
from kt_es.process.logs import takes_words, words
from kt_es.process.signals import listen
from kt_es.process.space import forgive_full_disk, is_full

_LOG = structlog.get_logger("kt_es.cli")

# Commands that run until they are stopped. Neither SIGHUP nor a full disk under their log ends them.
_SERVING = {"frontend", "monitor", "node", "signer", "up", "watch"}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_summaries(formatter)

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
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("kt.toml"),
    show_default=True,
    help="The directory's kt.toml, for the commands that run or inspect it.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    envvar=["KT_JSON", "KT_AS_JSON"],
    help="Print one JSON document on standard output.",
)
@click.option("-q", "--quiet", is_flag=True, help="No check marks and progress on standard error.")
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
        problem = (
            f"internal error, please report it: {type(error).__name__}: {error} (KT_DEBUG=1 shows where)"
        )
        code = _failed(run, 1, problem)
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
        raise ConfigError("standard output is closed, so nothing can be printed")


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
        say("  the evidence could not be saved; keep these lines, `kt verify` reads them:")
        # Complete and unescaped, whatever its length.
        if takes_words():
            _LOG.error("evidence", armored=armored(error.evidence))
        else:
            click.echo(armored(error.evidence), file=words())


if __name__ == "__main__":
    main()
