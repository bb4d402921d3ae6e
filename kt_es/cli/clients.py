"""The options of every command that talks to a front end, and the client that they make."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import certifi
import click
import platformdirs

from kt_es.cli.context import output_of
from kt_es.cli.numbers import Number
from kt_es.cli.output import Output
from kt_es.client.client import Client
from kt_es.client.keystore import KeyStore, StoredKey
from kt_es.client.states import States
from kt_es.client.trusted import Pinned
from kt_es.errors import ConfigError, StaleHeadError

DEFAULT_KEY = "default"

# A person waits for an answer; a change also waits for the next epoch.
LOOKUP_TIMEOUT = 15.0
CHANGE_TIMEOUT = 60.0

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Reach:
    """How a directory is reached and known; each field is an option of ``reach_options``."""

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
        """A client whose trusted state is kept under the state directory, one for each directory.

        All front ends of a directory are held against the same checkpoint, whether its key was given or
        trusted on first use.

        ``timeout`` holds for each call, in seconds, unless ``--timeout`` says otherwise.
        """
        pinned = None if self.vkey is None else Pinned.parse(self.vkey)
        try:
            verify = ssl.create_default_context(cafile=str(self.ca or certifi.where()))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"certificate {self.ca}: {error}") from None
        state = States(self.state).at(self.server, pinned)
        return Client(
            self.server,
            state,
            origin=state.origin,
            pinned=pinned,
            verify=verify,
            connections=connections,
            timeout=self.timeout or timeout,
            on_stale=on_stale,
            on_waiting=_told_once(),
        )


def _told_once() -> Callable[[str], None]:
    """Say on standard error that a command waits, once, whichever thread waits first."""
    context = click.get_current_context(silent=True)
    lock, said = threading.Lock(), threading.Event()

    def waiting(problem: str) -> None:
        with lock:
            if context is not None and not said.is_set():
                said.set()
                output_of(context).note(problem)

    return waiting


def until_fresh(output: Output) -> Callable[[StaleHeadError], None]:
    """For ``Client``: wait for a fresh head, and say so once, whichever thread waits first."""
    lock, said = threading.Lock(), threading.Event()

    def stale(error: StaleHeadError) -> None:
        with lock:
            if not said.is_set():
                said.set()
                output.note(f"waiting for a fresh head: {error.problem}")

    return stale


def state_option(command: _F) -> _F:
    return click.option(
        "--state",
        type=click.Path(path_type=Path, file_okay=False),
        default=lambda: platformdirs.user_state_path("kt-es"),
        help="Where trusted checkpoints and what is remembered are kept; default the XDG state directory.",
    )(command)


def reach_options(command: _F) -> _F:
    """``--server``, ``--vkey``, ``--state``, ``--ca``, ``--timeout``: the fields of ``Reach``."""
    for option in (
        click.option(
            "--timeout",
            type=Number(0.1),
            help=f"Seconds for each call; default {LOOKUP_TIMEOUT:.0f}, for changes {CHANGE_TIMEOUT:.0f}.",
        ),
        click.option(
            "--ca", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="CA certificate."
        ),
        state_option,
        click.option("--vkey", help="The directory's key, as its operator published it."),
        click.option(
            "--server",
            default="http://127.0.0.1:8080",
            show_default=True,
            help="The front end's URL.",
        ),
    ):
        command = option(command)
    return command


def keys_option(command: _F) -> _F:
    return click.option(
        "--keys",
        type=click.Path(path_type=Path, file_okay=False),
        default=lambda: platformdirs.user_data_path("kt-es") / "keys",
        help="Where your signing keys are; default the XDG data directory.",
    )(command)


def signing_keys(keys: Path, names: tuple[str, ...]) -> list[StoredKey]:
    """The named keys; without names the one called ``default``, or the only one there is."""
    store = KeyStore(keys)
    if names:
        return [store.get(name) for name in names]
    stored = store.list()
    if not stored:
        raise ConfigError(f"there is no signing key in {keys}: run `kt keys generate`")
    chosen = [key for key in stored if key.name == DEFAULT_KEY] or list(stored)
    if len(chosen) > 1:
        raise ConfigError(f"several signing keys in {keys}: choose with --sign-with NAME")
    return chosen
