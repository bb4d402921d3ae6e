"""``kt up``: run node, signer, front end, monitor and ``kt cosign`` as processes, until interrupted."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import httpx
from click.core import ParameterSource

from kt_es.cli.addresses import address, free_addresses
from kt_es.cli.operators.init import (
    CONFIG_OPTIONS,
    NewDirectory,
    begin_queue,
    new_directory_options,
    refuse_other_settings,
    write_directory,
)
from kt_es.cli.options import NEW_FOLDER, given_options
from kt_es.cli.output import STATE_FILE, Output, config_path, configure_logs, output_of, stop_on_signals
from kt_es.cli.supervisor import Supervisor
from kt_es.config.settings import FILE_NAME, Settings, load_settings
from kt_es.config.tables import Address, FrontendTable, NodeTable
from kt_es.errors import ConfigError, DiskFullError, KtError, LockedError, MisfitError, UnavailableError
from kt_es.eventstore.connecting import connect
from kt_es.node.stopped import has_users
from kt_es.process.files import PUBLIC, replace_file
from kt_es.process.log_filters import without_password
from kt_es.process.network import is_loopback, uses_proxies
from kt_es.process.signals import reloading
from kt_es.process.space import is_full

LOCK_FILE = "up.lock"
PATIENCE = 10.0
"""Seconds after which ``kt up`` reports what it waits for."""


@click.command("up")
@click.option(
    "--data",
    type=NEW_FOLDER,
    default=Path("kt-data"),
    show_default=True,
    help="The directory's files, kt.toml among them.",
)
@new_directory_options
@click.option(
    "--listen", metavar="HOST:PORT", help="Address of the front end; default as in kt.toml, 127.0.0.1:8080."
)
@click.option(
    "--node-listen", metavar="HOST:PORT", help="Address of the node; default as in kt.toml, 127.0.0.1:2113."
)
@click.option("-v", "--verbose", is_flag=True, help="Show the logs of the processes, as JSON lines.")
@click.pass_context
def up_command(
    context: click.Context,
    /,
    data: Path,
    listen: str | None,
    node_listen: str | None,
    verbose: bool,
    **options: Any,
) -> int:
    """Run a whole directory on this machine. If --data has none, make one first.

    If [cosign] of kt.toml names a policy, its witnesses are asked as well. A process that dies is reported
    and started again. Interrupt to stop.
    """
    configure_logs("up", "json" if verbose else "problems")
    output = output_of(context)
    _refuse_other_file(context, data)
    with locked(data):
        known = load_settings(data / FILE_NAME) if (data / FILE_NAME).exists() else None
        if known is not None:
            _refuse_users(known)
            refuse_other_settings(context, known, "origin")
            _refuse_other_log(known)
        node_listen = node_listen or (known.node if known else NodeTable()).listen
        listen = listen or (known.frontend if known else FrontendTable()).listen
        node, frontend = free_addresses(address(node_listen, "node-listen"), address(listen))
        new = NewDirectory(
            directory="people",
            log=f"esdb://{node}?Tls=false",
            node_listen=node_listen,
            frontend_listen=listen,
            **options,
        )
        settings = known or write_directory(data, new)
        if known is None:
            _refuse_users(settings)
            output.ok(f"made {data} for {settings.origin}")
        given = given_options(context, CONFIG_OPTIONS)
        running = RunningDirectory(output, settings, new, given, node, frontend)
        return running.until(stop_on_signals(), verbose=verbose)


def _refuse_other_file(context: click.Context, data: Path) -> None:
    """Refuse an option that names another kt.toml than the file in --data, which ``kt up`` reads."""
    named = config_path(context)
    is_given = context.find_root().get_parameter_source("config") is ParameterSource.COMMANDLINE
    if is_given and named.resolve() != (data / FILE_NAME).resolve():
        raise click.UsageError(
            f"kt up reads {data / FILE_NAME} and not {named}: name the directory with --data {named.parent}"
        )


def _refuse_users(settings: Settings) -> None:
    """Refuse a node with users: the processes that ``kt up`` starts do not log in."""
    data = settings.path(settings.node.data)
    if has_users(data):
        raise ConfigError(f"the node in {data} has users: run it with kt node, and each process by itself")


def _refuse_other_log(settings: Settings) -> None:
    """Refuse a directory that is in another event log, because it must not begin again in this node."""
    listen = address(settings.node.listen, "node.listen")
    target = settings.log.partition("://")[2].partition("?")[0].rpartition("@")[2]
    try:
        # Both client libraries use port 2113 if the address has none.
        at = Address.parse(target if target.rpartition(":")[2].isdigit() else f"{target}:2113")
    except ValueError:
        at = None
    if (
        at is None
        or not (at.host == listen.host or (is_loopback(at.host) and is_loopback(listen.host)))
        or listen.port not in (0, at.port)
    ):
        raise ConfigError(
            f"{settings.base / FILE_NAME} says log = {without_password(settings.log)!r}, which is not its "
            f"own node (node.listen = {settings.node.listen!r}): kt up runs a directory "
            "over its own node alone; run kt signer, kt frontend and kt monitor for this one"
        )


@contextmanager
def locked(data: Path) -> Iterator[None]:
    """Lock the data directory for this ``kt up``.

    Each process locks its own data too, but a second supervisor would restart its processes over and over,
    and replace the state file of the first one. Raises ``LockedError``.
    """
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = os.open(data / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if is_full(error):
            raise DiskFullError(data) from None
        problem = f"{data} cannot be used as a data directory: {error.strerror}"
        raise ConfigError(f"{problem}; name another one with --data") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(
                f"{data} is in use by another process: kt up runs there already; stop it first"
            ) from None
        yield
    finally:
        os.close(lock)


@dataclass(slots=True)
class RunningDirectory:
    """The processes of one directory. ``new.log`` is the connection string of ``node``.

    ``given`` are the options that must agree with the signed config.
    """

    output: Output
    settings: Settings
    new: NewDirectory
    given: Sequence[str]
    node: Address
    frontend: Address
    _is_saved: bool = field(init=False, default=True)
    _supervisor: Supervisor = field(init=False)

    def __post_init__(self) -> None:
        self._supervisor = Supervisor(self.output.fail, self._save_state)

    @property
    def _url(self) -> str:
        return f"{'http' if self.settings.frontend.tls_cert is None else 'https'}://{self.frontend}"

    @property
    def _state(self) -> Path:
        return self.settings.base / STATE_FILE

    def _save_state(self, pids: dict[str, int]) -> None:
        document = {
            "pid": os.getpid(),
            "url": self._url,
            "log": self.new.log,
            "key": self.settings.key,
            "processes": pids,
            "restarts": {child.name: child.restarts for child in self._supervisor.children},
        }
        try:
            replace_file(self._state, json.dumps(document, indent=2).encode(), PUBLIC)
        except OSError as error:
            # The processes continue even if the state file, which `kt status` reads, cannot be written.
            if self._is_saved:
                self.output.fail(f"{self._state} cannot be written: {error.strerror}; trying again")
            self._is_saved = False
        else:
            self._is_saved = True

    def until(self, stop: threading.Event, *, verbose: bool) -> int:
        """Run until ``stop``, or until the node refuses. Return the exit code of a process that refused."""
        settings, supervisor, log = self.settings, self._supervisor, self.new.log
        common = ("-q", "--logs", "json" if verbose else "problems", "-c", str(settings.base / FILE_NAME))
        with ExitStack() as stack:
            stack.callback(self._state.unlink, missing_ok=True)
            stack.callback(supervisor.stop)
            stack.enter_context(reloading(supervisor.reload))
            words = (*common, *node_arguments(settings), "--listen", str(self.node))
            node = supervisor.start("node", words)
            # Before that, an answer at the address of the node may come from another event log.
            self._wait(stop, "the node to open its data", lambda: supervisor.listens(node))
            self._wait(stop, "the node to answer", self._begin)
            supervisor.start("signer", (*common, "signer", "--log", log))
            frontend = supervisor.start(
                "frontend", (*common, "frontend", "--log", log, "--listen", str(self.frontend))
            )
            supervisor.start("monitor", (*common, "monitor", "--log", log))
            self._wait(stop, "the front end", lambda: supervisor.listens(frontend) and self._ready())
            if not stop.is_set():
                if settings.cosign.policy is not None:
                    # After the front end, which gives the proofs, and runs whatever becomes of the witnesses.
                    server = settings.cosign.server or self._url
                    supervisor.start("cosign", (*common, "cosign", "--log", log, "--server", server))
                self.output.ok(f"{settings.origin} is served at {self._url}")
                self.output.note(f"  verify with  {settings.key}")
                self.output.data(
                    {"origin": settings.origin, "url": self._url, "log": log, "key": settings.key}, []
                )
            while not stop.wait(0.2):
                supervisor.check()
                if not self._is_saved:
                    self._save_state(supervisor.pids)
                if supervisor.children[0].final_code is not None:
                    break
        codes = [child.final_code for child in supervisor.children if child.final_code is not None]
        return codes[0] if codes else 0

    def _begin(self) -> bool:
        """Begin the queue; return False while the node does not answer, as just after its start."""
        try:
            with closing(connect(self.new.log)) as log:
                begin_queue(self.settings, log, self.new, self.given)
        except MisfitError:
            raise
        except UnavailableError:
            return False
        return True

    def _ready(self) -> bool:
        try:
            # The front end is our own child on this machine, so the name in its certificate does not matter.
            url = f"{self._url}/readyz"
            answer = httpx.get(url, timeout=2, verify=False, trust_env=uses_proxies(url))  # noqa: S501
        except httpx.HTTPError:
            return False
        if answer.status_code == httpx.codes.OK:
            return True
        # If the clock was set back, the front end answers with a problem. Do not wait for the clock.
        return answer.headers["content-type"] == "application/problem+json" and answer.json().get(
            "reasons"
        ) == ["future-head"]

    def _wait(self, stop: threading.Event, what: str, done: Callable[[], bool]) -> None:
        """Wait for ``what`` without a limit, and report it once: reading a large log takes minutes."""
        begun, is_reported = time.monotonic(), False
        while not stop.is_set() and not done():
            self._supervisor.check()
            refused = [child for child in self._supervisor.children if child.final_code is not None]
            if refused:
                # Use the exit code of the process, because it distinguishes usage from divergence.
                error = KtError(f"{refused[0].name} refused to start: mend what its message above names")
                error.exit_code = refused[0].final_code or error.exit_code
                raise error
            if not is_reported and time.monotonic() - begun > PATIENCE:
                is_reported = True
                self.output.note(f"waiting for {what}")
            stop.wait(0.1)


def node_arguments(settings: Settings) -> tuple[str, ...]:
    """Return the arguments of ``kt node`` without its address. The node reads its limits from ``kt.toml``."""
    return ("node", "--data", str(settings.path(settings.node.data)))
