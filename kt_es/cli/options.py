"""Options that commands share, and the client or the event log that they open.

Each option has its own variable, ``KT_<COMMAND>_<OPTION>``. An option that means the same in several commands
also has the variable ``KT_<OPTION>``, which sets it for all of them.
"""

from __future__ import annotations

import math
import os
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import certifi
import click
import platformdirs
from click.core import ParameterSource

from kt_es.cli.output import Output, output_of
from kt_es.cli.policies import read_policies
from kt_es.client.client import Client
from kt_es.client.registering import check_evidence
from kt_es.client.states import States
from kt_es.client.trusted import Pinned
from kt_es.client.vouching import AGE
from kt_es.errors import ConfigError, StaleHeadError
from kt_es.formats.registration import MAX_EVIDENCE

if TYPE_CHECKING:
    from kt_es.eventstore.patient import PatientLog

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
NEW_FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
NEW_FOLDER = click.Path(path_type=Path, file_okay=False)
"""Types of paths. A new one need not exist."""

JSON_HELP = "Print one JSON document on standard output."
QUIET_HELP = "No check marks and progress on standard error."

# The options data, listen and metrics are not shared, because each process needs its own value.
SHARED = (
    *("server", "vkey", "state", "ca", "timeout", "keys", "mine", "log", "patience", "directory"),
    *("origin", "label_policy", "min_interval", "max_interval"),
)
"""Options that ``KT_<OPTION>`` sets for every command that has them."""

EVIDENCE_VARIABLE = "KT_REGISTRATION"
"""The variable with a registration proof itself. Options would show it to other users of the machine."""

LARGEST = 1e9
"""Thirty years in seconds. The clocks and timers of the system accept such a value."""

_F = TypeVar("_F", bound=Callable[..., Any])


class Number(click.FloatRange):
    """A range of numbers up to a thousand million. ``nan`` is refused, because it is in no range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        converted = super().convert(value, param, ctx)
        if isinstance(converted, float):
            if math.isnan(converted):
                self.fail(f"{value!r} is not a number.", param, ctx)
            if converted > LARGEST:
                self.fail(f"{value!r} is more than {LARGEST:.0f}.", param, ctx)
        return converted


def options(*decorators: Callable[[_F], _F]) -> Callable[[_F], _F]:
    """Return one decorator that adds several options, in the order of ``--help``."""

    def decorate(command: _F) -> _F:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def with_common_options(command: click.Command, prefix: str) -> click.Command:
    """Add the common options and variables to ``command`` and its subcommands.

    ``prefix`` begins the names of the command's own variables, such as ``KT_SIGNER``.
    """
    names = {option for parameter in command.params for option in parameter.opts}
    for flags, field, text in ((("--json",), "json", JSON_HELP), (("-q", "--quiet"), "quiet", QUIET_HELP)):
        if names.isdisjoint(flags):
            flag = click.Option(
                [*flags, f"output_{field}"],
                is_flag=True,
                expose_value=False,
                envvar=f"{prefix}_{field.upper()}",
                callback=partial(_set, field),
                help=text,
            )
            command.params.append(flag)
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name in SHARED:
            name = parameter.name.upper()
            parameter.envvar = [f"{prefix}_{name}", f"KT_{name}"]
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            with_common_options(below, f"{prefix}_{name.upper().replace('-', '_')}")
    return command


def _set(field: str, context: click.Context, _: click.Parameter, value: bool) -> None:
    output = (context.find_root().obj or {}).get("output")
    if value and output is not None:
        setattr(output, field, True)


def is_named(context: click.Context, option: str) -> bool:
    """Return whether ``option`` is on the command line. There it takes precedence over any variable."""
    return context.get_parameter_source(option) is ParameterSource.COMMANDLINE


def given_options(context: click.Context, names: Sequence[str]) -> tuple[str, ...]:
    """Return those of ``names`` that the command line or a variable sets."""
    return tuple(name for name in names if context.get_parameter_source(name) is not ParameterSource.DEFAULT)


def wants_json(words: Sequence[str]) -> bool:
    """Return whether a command line that could not be parsed, or ``KT_JSON``, asks for JSON."""
    before = words[: words.index("--")] if "--" in words else words
    try:
        return "--json" in before or bool(click.BOOL.convert(os.environ.get("KT_JSON") or "0", None, None))
    except click.BadParameter:
        return False


# A person waits for an answer; a change also waits for the next epoch.
LOOKUP_TIMEOUT = 15.0
CHANGE_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Reach:
    """How a directory is reached, and its pinned key: the values of ``reach_options``."""

    server: str
    vkey: str | None
    state: Path
    ca: Path | None
    timeout: float | None
    proof_file: Path | None = None
    policy: Path | None = None
    monitors: Path | None = None
    policy_age: float = AGE

    def client(
        self,
        connections: int = 32,
        timeout: float = LOOKUP_TIMEOUT,
        on_stale: Callable[[StaleHeadError], None] | None = None,
    ) -> Client:
        """Make a client whose trusted state is kept under the state directory.

        All front ends of a directory are compared with the same checkpoint, whether its key was given or
        trusted on first use. ``timeout`` bounds each call, unless ``--timeout`` was given.
        """
        pinned = None if self.vkey is None else Pinned.parse(self.vkey)
        try:
            verify = ssl.create_default_context(cafile=str(self.ca or certifi.where()))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"certificate {self.ca} cannot be used: {error}; name a PEM file with --ca"
            ) from None
        state = States(self.state).at(self.server, pinned)
        context = click.get_current_context(silent=True)
        return Client(
            self.server,
            state,
            origin=state.origin,
            pinned=pinned,
            verify=verify,
            connections=connections,
            registration=read_evidence(self.proof_file),
            policies=read_policies(self.policy, self.monitors, self.policy_age),
            timeout=self.timeout or timeout,
            on_stale=on_stale,
            on_waiting=_once(lambda problem: None if context is None else output_of(context).note(problem)),
        )


def read_evidence(path: Path | None) -> str | None:
    """Return the registration proof in the file ``path``, or else in ``EVIDENCE_VARIABLE``.

    The path ``-`` is standard input. Raises ``ConfigError``.
    """
    if path is None:
        given = os.environ.get(EVIDENCE_VARIABLE)
        return check_evidence(given) if given else None
    try:
        if str(path) == "-":
            return check_evidence(sys.stdin.read(2 * MAX_EVIDENCE))
        with path.open(encoding="ascii") as file:
            return check_evidence(file.read(2 * MAX_EVIDENCE))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; name another file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} holds no registration proof; name another file") from None


def until_fresh(output: Output) -> Callable[[StaleHeadError], None]:
    """Return an ``on_stale`` for ``Reach.client`` that reports once that a command waits."""
    note = _once(output.note)
    return lambda error: note(f"waiting for a fresh head: {error.problem}")


def _once(report: Callable[[str], None]) -> Callable[[str], None]:
    """Return a function that passes on only the first text, of any thread."""
    first = threading.Semaphore()
    return lambda text: report(text) if first.acquire(blocking=False) else None


state_option = click.option(
    "--state",
    type=NEW_FOLDER,
    default=lambda: platformdirs.user_state_path("kt-es"),
    help="Where trusted checkpoints and what is remembered are kept; default the XDG state directory.",
)

ca_option = click.option("--ca", type=FILE, help="CA certificate of the server.")
policy_options = options(
    click.option("--policy", type=FILE, help="Require the quorum of witnesses in this tlog-policy file."),
    click.option("--monitors", type=FILE, help="Require the quorum of monitors in this tlog-policy file."),
    click.option(
        "--policy-age",
        type=Number(1),
        default=AGE,
        show_default=True,
        help="Seconds by which the latest head may be newer than the cosigned one.",
    ),
)
reach_options = options(
    click.option("--server", default="http://127.0.0.1:8080", show_default=True, help="The front end's URL."),
    click.option("--vkey", help="The directory's key, as its operator published it."),
    state_option,
    ca_option,
    click.option(
        "--timeout",
        type=Number(0.1),
        help=f"Seconds for each call; default {LOOKUP_TIMEOUT:.0f}, for changes {CHANGE_TIMEOUT:.0f}.",
    ),
    policy_options,
)
"""The fields of ``Reach``."""

proof_option = click.option(
    "--proof-file",
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="For a new label: file with your token, mail proof or ID token; - is standard input. "
    f"Without it, the variable {EVIDENCE_VARIABLE}.",
)
"""Another field of ``Reach``, for commands that may register labels."""

log_option = click.option(
    "--log", metavar="URI", help="Connection string of the event log; default as in kt.toml."
)
data_option = click.option("--data", type=NEW_FOLDER, help="Its data; default as in kt.toml.")
metrics_option = click.option(
    "--metrics", metavar="HOST:PORT", help="Serve metrics for Prometheus; default as in kt.toml."
)
also_option = click.option(
    "--also",
    metavar="URL|FILE",
    multiple=True,
    help="Compare with what others show, at URL or in FILE; repeatable.",
)
patience_option = click.option(
    "--patience",
    type=Number(0),
    default=30.0,
    show_default=True,
    help="Seconds to wait for the event log while it is away; then the exit code is 7.",
)


@contextmanager
def event_log(uri: str, output: Output, patience: float) -> Iterator[PatientLog]:
    """Open the log at ``uri``, which waits up to ``patience`` seconds in an outage.

    Raises ``ConfigError``.
    """
    # A client is installed without the libraries of the event log.
    from kt_es.eventstore.connecting import Connector
    from kt_es.eventstore.patient import Patience, PatientLog

    with closing(PatientLog(Connector(uri), Patience(patience, output.note))) as log:
        yield log
