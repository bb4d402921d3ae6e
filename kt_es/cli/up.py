"""``kt up``: node, signer, front end and monitor as processes of their own, until interrupted."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
import httpx
from click.core import ParameterSource

from kt_es.cli.addresses import free_addresses
from kt_es.cli.context import STATE_FILE, config_path, output_of, stop_on_signals
from kt_es.cli.logs import configure_logs
from kt_es.cli.numbers import Number
from kt_es.cli.operate import address
from kt_es.cli.output import Output
from kt_es.cli.setup import (
    CONFIG_OPTIONS,
    NewDirectory,
    begin_queue,
    given_options,
    refuse_other_settings,
    write_directory,
)
from kt_es.cli.supervisor import Supervisor
from kt_es.config import FILE_NAME, Address, FrontendTable, NodeTable, Settings, load_settings
from kt_es.errors import ConfigError, DiskFullError, KtError, LockedError, MisfitError, UnavailableError
from kt_es.eventstore.esdb import connect
from kt_es.formats.labels import LABEL_POLICIES
from kt_es.node.stopped import has_users
from kt_es.process.files import PUBLIC, replace_file
from kt_es.process.proxies import is_loopback, uses_proxies
from kt_es.process.redaction import without_password
from kt_es.process.signals import reloading
from kt_es.process.space import is_full

LOCK_FILE = "up.lock"
PATIENCE = 10.0
"""Seconds after which ``kt up`` says what it waits for."""


@click.command("up")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("kt-data"),
    show_default=True,
    help="The directory's files, kt.toml among them.",
)
@click.option("--origin", default="localhost/people", show_default=True, help="For a new directory: its URL.")
@click.option(
    "--label-policy",
    type=click.Choice(LABEL_POLICIES),
    default=LABEL_POLICIES[0],
    show_default=True,
    help="For a new directory: what its labels are.",
)
@click.option(
    "--min-interval", type=Number(0), default=1.0, show_default=True, help="For a new directory, seconds."
)
@click.option(
    "--max-interval", type=Number(0.1), default=60.0, show_default=True, help="For a new directory, seconds."
)
@click.option(
    "--listen", metavar="HOST:PORT", help="Of the front end; default as in kt.toml, 127.0.0.1:8080."
)
@click.option(
    "--node-listen", metavar="HOST:PORT", help="Of the node; default as in kt.toml, 127.0.0.1:2113."
)
@click.option("-v", "--verbose", is_flag=True, help="Show the logs of the processes, as JSON lines.")
@click.pass_context
def up_command(
    context: click.Context,
    data: Path,
    origin: str,
    label_policy: str,
    min_interval: float,
    max_interval: float,
    listen: str | None,
    node_listen: str | None,
    verbose: bool,
) -> int:
    """Run a whole directory on this machine; a new one is made in --data first.

    A process that dies is reported and started again. Interrupt to stop.
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
        log = f"esdb://{node}?Tls=false"
        new = NewDirectory(
            "people", origin, log, label_policy, min_interval, max_interval, node_listen, listen
        )
        settings = known or write_directory(data, new)
        if known is None:
            _refuse_users(settings)
            output.ok(f"made {data} for {settings.origin}")
        given = given_options(context, CONFIG_OPTIONS)
        return Run(output, settings, new, given, node, frontend).until(stop_on_signals(), verbose=verbose)


def _refuse_other_file(context: click.Context, data: Path) -> None:
    """``kt up`` reads the kt.toml in --data: another one that was named would be ignored."""
    named = config_path(context)
    is_given = context.find_root().get_parameter_source("config") is ParameterSource.COMMANDLINE
    if is_given and named.resolve() != (data / FILE_NAME).resolve():
        raise click.UsageError(
            f"kt up reads {data / FILE_NAME} and not {named}: name the directory with --data {named.parent}"
        )


def _refuse_users(settings: Settings) -> None:
    """The processes that ``kt up`` starts do not log in, so a node with users would refuse them all."""
    data = settings.path(settings.node.data)
    if has_users(data):
        raise ConfigError(f"the node in {data} has users: run it with kt node, and each process by itself")


def _refuse_other_log(settings: Settings) -> None:
    """A directory that stands in another event log than this node must not be begun a second time here."""
    listen = address(settings.node.listen, "node.listen")
    target = settings.log.partition("://")[2].partition("?")[0].rpartition("@")[2]
    try:
        # As both client libraries have it, without a port it is 2113.
        at = Address.parse(target if target.rpartition(":")[2].isdigit() else f"{target}:2113")
    except ValueError:
        at = None
    same_host = at is not None and (
        at.host == listen.host or (is_loopback(at.host) and is_loopback(listen.host))
    )
    if at is None or not same_host or listen.port not in (0, at.port):
        raise ConfigError(
            f"{settings.base / FILE_NAME} says log = {without_password(settings.log)!r}, which is not its "
            f"own node (node.listen = {settings.node.listen!r}): kt up runs a directory "
            "over its own node alone; run kt signer, kt frontend and kt monitor for this one"
        )


@contextmanager
def locked(data: Path) -> Iterator[None]:
    """The data directory for this ``kt up`` alone; ``LockedError`` if another one has it.

    Each process locks its own data too, but a second supervisor would restart them over and over, and
    replace the first one's state file.
    """
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = os.open(data / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if is_full(error):
            raise DiskFullError(data) from None
        raise ConfigError(f"{data} cannot be used as a data directory: {error.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(f"{data} is in use by another process: kt up runs there already") from None
        yield
    finally:
        os.close(lock)


class Run:
    """The processes of one directory. ``new.log`` is where ``node`` is reached.

    ``given`` are the options that have to agree with the signed config.
    """

    def __init__(
        self,
        output: Output,
        settings: Settings,
        new: NewDirectory,
        given: Sequence[str],
        node: Address,
        frontend: Address,
    ) -> None:
        self._output = output
        self._settings = settings
        self._new = new
        self._given = given
        self._node = node
        self._frontend = frontend
        self._url = f"{'http' if settings.frontend.tls_cert is None else 'https'}://{frontend}"
        self._state = settings.base / STATE_FILE
        self._is_remembered = True
        self._supervisor = Supervisor(output.fail, self._remember)

    def _remember(self, pids: dict[str, int]) -> None:
        document = {
            "pid": os.getpid(),
            "url": self._url,
            "log": self._new.log,
            "key": self._settings.key,
            "processes": pids,
            "restarts": {child.name: child.restarts for child in self._supervisor.children},
        }
        try:
            replace_file(self._state, json.dumps(document, indent=2).encode(), PUBLIC)
        except OSError as error:
            # The processes matter more than what kt status reads about them.
            if self._is_remembered:
                self._output.fail(f"{self._state} cannot be written: {error.strerror}; trying again")
            self._is_remembered = False
        else:
            self._is_remembered = True

    def until(self, stop: threading.Event, *, verbose: bool) -> int:
        """Run until ``stop``; the exit code of the first process that refused to go on."""
        settings, supervisor, log = self._settings, self._supervisor, self._new.log
        common = ("-q", "--logs", "json" if verbose else "problems", "-c", str(settings.base / FILE_NAME))
        with ExitStack() as stack:
            stack.callback(self._end)
            stack.enter_context(reloading(supervisor.reload))
            node = supervisor.start("node", (*common, *_node(settings), "--listen", str(self._node)))
            # Not before: what answers at the node's address may be another event log.
            self._wait(stop, "the node to open its data", lambda: supervisor.listens(node))
            self._wait(stop, "the node to answer", self._begin)
            supervisor.start("signer", (*common, "signer", "--log", log))
            frontend = supervisor.start(
                "frontend", (*common, "frontend", "--log", log, "--listen", str(self._frontend))
            )
            supervisor.start("monitor", (*common, "monitor", "--log", log))
            self._wait(stop, "the front end", lambda: supervisor.listens(frontend) and self._ready())
            if not stop.is_set():
                self._output.ok(f"{settings.origin} is served at {self._url}")
                self._output.note(f"  verify with  {settings.key}")
                self._output.data(
                    {"origin": settings.origin, "url": self._url, "log": log, "key": settings.key}, []
                )
            while not stop.wait(0.2):
                supervisor.check()
                if not self._is_remembered:
                    self._remember(supervisor.pids)
                if supervisor.children[0].final_code is not None:
                    break
        codes = [child.final_code for child in supervisor.children if child.final_code is not None]
        return codes[0] if codes else 0

    def _end(self) -> None:
        self._supervisor.stop()
        self._state.unlink(missing_ok=True)

    def _begin(self) -> bool:
        """Begin the queue; False while the node does not answer, as for a moment after its start."""
        try:
            log = connect(self._new.log)
            try:
                begin_queue(self._settings, log, self._new, self._given)
            finally:
                log.close()
        except MisfitError:
            raise
        except UnavailableError:
            return False
        return True

    def _ready(self) -> bool:
        try:
            # It is our own child on our own machine, whatever name its certificate has.
            answer = httpx.get(
                f"{self._url}/readyz",
                timeout=2,
                verify=False,  # noqa: S501
                trust_env=uses_proxies(self._url),
            )
        except httpx.HTTPError:
            return False
        if answer.status_code == httpx.codes.OK:
            return True
        # A clock that was set back is no reason to wait until it has caught up: it answers.
        return answer.headers["content-type"] == "application/problem+json" and answer.json().get(
            "reasons"
        ) == ["future-head"]

    def _wait(self, stop: threading.Event, what: str, done: Callable[[], bool]) -> None:
        """Wait for ``what`` as long as it takes: a large log is read for minutes. Say so once.

        Raises ``KtError`` if a process refuses to start.
        """
        begun, said = time.monotonic(), False
        while not stop.is_set() and not done():
            self._supervisor.check()
            refused = [child for child in self._supervisor.children if child.final_code is not None]
            if refused:
                # Its code is ours: nobody else says whether it was usage or a divergence.
                error = KtError(f"{refused[0].name} refused to start; what it said stands above")
                error.exit_code = refused[0].final_code or error.exit_code
                raise error
            if not said and time.monotonic() - begun > PATIENCE:
                said = True
                self._output.note(f"waiting for {what}")
            stop.wait(0.1)


def _node(settings: Settings) -> tuple[str, ...]:
    """The words of ``kt node`` for the node of ``settings``, but its address; it reads its limits itself."""
    return ("node", "--data", str(settings.path(settings.node.data)))
