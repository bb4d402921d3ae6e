"""The options of every command that talks to a front end, and the client that they make."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import certifi
import click
import platformdirs

from kt_es.cli.context import output_of
from kt_es.cli.options import Number, options
from kt_es.cli.output import Output
from kt_es.client.client import Client
from kt_es.client.states import States
from kt_es.client.trusted import Pinned
from kt_es.errors import ConfigError, StaleHeadError

# A person waits for an answer; a change also waits for the next epoch.
LOOKUP_TIMEOUT = 15.0
CHANGE_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Reach:
    """How a directory is reached, and its pinned key. Each field is an option of ``reach_options``."""

    server: str
    vkey: str | None
    state: Path
    ca: Path | None
    timeout: float | None

    def client(
        self,
        connections: int = 32,
        timeout: float = LOOKUP_TIMEOUT,
        on_stale: Callable[[StaleHeadError], None] | None = None,
    ) -> Client:
        """Make a client whose trusted state is kept under the state directory.

        All front ends of a directory are compared with the same checkpoint, whether its key was given or
        trusted on first use.

        Args:
            connections: how many connections the client opens at most.
            timeout: seconds for each call, unless ``--timeout`` was given.
            on_stale: called while the head is stale; see ``Client``.
        """
        pinned = None if self.vkey is None else Pinned.parse(self.vkey)
        try:
            verify = ssl.create_default_context(cafile=str(self.ca or certifi.where()))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"certificate {self.ca}: {error}") from None
        state = States(self.state).at(self.server, pinned)
        context = click.get_current_context(silent=True)
        return Client(
            self.server,
            state,
            origin=state.origin,
            pinned=pinned,
            verify=verify,
            connections=connections,
            timeout=self.timeout or timeout,
            on_stale=on_stale,
            on_waiting=_once(lambda problem: None if context is None else output_of(context).note(problem)),
        )


def until_fresh(output: Output) -> Callable[[StaleHeadError], None]:
    """Return an ``on_stale`` for ``Reach.client`` that waits for a fresh head and reports it once."""
    note = _once(output.note)
    return lambda error: note(f"waiting for a fresh head: {error.problem}")


def _once(report: Callable[[str], None]) -> Callable[[str], None]:
    """Return a function that passes on the first text alone, whichever thread reports it."""
    first = threading.Semaphore()
    return lambda text: report(text) if first.acquire(blocking=False) else None


state_option = click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    default=lambda: platformdirs.user_state_path("kt-es"),
    help="Where trusted checkpoints and what is remembered are kept; default the XDG state directory.",
)

reach_options = options(
    click.option("--server", default="http://127.0.0.1:8080", show_default=True, help="The front end's URL."),
    click.option("--vkey", help="The directory's key, as its operator published it."),
    state_option,
    click.option(
        "--ca", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="CA certificate."
    ),
    click.option(
        "--timeout",
        type=Number(0.1),
        help=f"Seconds for each call; default {LOOKUP_TIMEOUT:.0f}, for changes {CHANGE_TIMEOUT:.0f}.",
    ),
)
"""The fields of ``Reach``."""
