"""``kt up``: node, signer, front end and monitor as processes of their own, until interrupted."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
import httpx

from kt_es.cli.context import STATE_FILE, output_of, stop_on_signals
from kt_es.cli.operate import address
from kt_es.cli.output import Output
from kt_es.cli.setup import NewDirectory, begin_queue, write_directory, write_private
from kt_es.cli.supervisor import Supervisor
from kt_es.config import FILE_NAME, Address, FrontendTable, NodeTable, Settings, load_settings
from kt_es.errors import ConfigError, KtError, LockedError, UnavailableError
from kt_es.eventstore.esdb import connect
from kt_es.formats.labels import LABEL_POLICIES
from kt_es.node.access.users import FILE_NAME as USERS_FILE
from kt_es.process.hangups import reloading

LOCK_FILE = "up.lock"
START_SECONDS = 60.0


def with_free_port(where: Address) -> Address:
    """``where`` with port 0 replaced by a free one, which stays the children's over restarts."""
    if where.port != 0:
        return where
    with socket.socket(socket.AF_INET6 if ":" in where.host else socket.AF_INET) as probe:
        probe.bind((where.host, 0))
        return Address(host=where.host, port=probe.getsockname()[1])


@click.command("up")
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), default=Path("kt-data"), show_default=True
)
@click.option("--origin", default="localhost/people", show_default=True, help="For a new directory: its URL.")
@click.option(
    "--label-policy", type=click.Choice(LABEL_POLICIES), default=LABEL_POLICIES[0], show_default=True
)
@click.option("--min-interval", type=click.FloatRange(0), default=1.0, show_default=True, help="Seconds.")
@click.option("--max-interval", type=click.FloatRange(0.1), default=60.0, show_default=True, help="Seconds.")
@click.option(
    "--listen", metavar="HOST:PORT", help="Of the front end; default as in kt.toml, 127.0.0.1:8080."
)
@click.option(
    "--node-listen", metavar="HOST:PORT", help="Of the node; default as in kt.toml, 127.0.0.1:2113."
)
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
) -> int:
    """Run a whole directory on this machine; a new one is made in --data first.

    A process that dies is reported and started again. Interrupt to stop.
    """
    output = output_of(context)
    with locked(data):
        known = load_settings(data / FILE_NAME) if (data / FILE_NAME).exists() else None
        node_listen = node_listen or (known.node if known else NodeTable()).listen
        listen = listen or (known.frontend if known else FrontendTable()).listen
        node = with_free_port(address(node_listen, "node-listen"))
        frontend = with_free_port(address(listen))
        log = f"esdb://{node}?Tls=false"
        new = NewDirectory(
            "people", origin, log, label_policy, min_interval, max_interval, node_listen, listen
        )
        settings = known or write_directory(data, new)
        if known is None:
            output.ok(f"made {data} for {settings.origin}")
        _refuse_users(settings)
        return run_up(output, settings, new, node, frontend, stop_on_signals())


def _refuse_users(settings: Settings) -> None:
    """The processes that ``kt up`` starts do not log in, so a node with users would refuse them all."""
    data = settings.path(settings.node.data)
    if (data / USERS_FILE).exists():
        raise ConfigError(f"the node in {data} has users: run it with kt node, and each process by itself")


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
        raise ConfigError(f"{data} cannot be used as a data directory: {error.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(f"{data} is in use by another process: kt up runs there already") from None
        yield
    finally:
        os.close(lock)


def run_up(
    output: Output,
    settings: Settings,
    new: NewDirectory,
    node: Address,
    frontend: Address,
    stop: threading.Event,
) -> int:
    """The processes of ``settings`` until ``stop``; the exit code of the first that refused to go on.

    ``new.log`` is where ``node`` is reached.
    """
    url = f"{'http' if settings.frontend.tls_cert is None else 'https'}://{frontend}"
    state = settings.base / STATE_FILE

    def remember(pids: dict[str, int]) -> None:
        document = {
            "pid": os.getpid(),
            "url": url,
            "log": new.log,
            "key": settings.key,
            "processes": pids,
            "restarts": {child.name: child.restarts for child in supervisor.children},
        }
        write_private(state, json.dumps(document, indent=2).encode(), mode=0o644)

    supervisor = Supervisor(output.fail, remember)
    common = ("-q", "-c", str(settings.base / FILE_NAME))
    with ExitStack() as stack:
        stack.callback(_end, supervisor, state)
        stack.enter_context(reloading(supervisor.reload))
        supervisor.start("node", (*common, *_node(settings), "--listen", str(node)))
        _until(stop, supervisor, "the node", lambda: _begin(settings, new))
        supervisor.start("signer", (*common, "signer", "--log", new.log))
        supervisor.start("frontend", (*common, "frontend", "--log", new.log, "--listen", str(frontend)))
        supervisor.start("monitor", (*common, "monitor", "--log", new.log))
        _until(stop, supervisor, "the front end", lambda: _ready(url))
        if not stop.is_set():
            output.ok(f"{settings.origin} is served at {url}")
            output.note(f"  verify with  {settings.key}")
        while not stop.wait(0.2):
            supervisor.check()
            if supervisor.children[0].final_code is not None:
                break
    codes = [child.final_code for child in supervisor.children if child.final_code is not None]
    return codes[0] if codes else 0


def _end(supervisor: Supervisor, state: Path) -> None:
    supervisor.stop()
    state.unlink(missing_ok=True)


def _node(settings: Settings) -> tuple[str, ...]:
    return ("node", "--data", str(settings.path(settings.node.data)))


def _begin(settings: Settings, new: NewDirectory) -> bool:
    try:
        log = connect(new.log)
        try:
            begin_queue(settings, log, new)
        finally:
            log.close()
    except UnavailableError:
        return False
    return True


def _ready(url: str) -> bool:
    try:
        # It is our own child on our own machine, whatever name its certificate has.
        return httpx.get(f"{url}/readyz", timeout=2, verify=False).status_code == httpx.codes.OK  # noqa: S501
    except httpx.HTTPError:
        return False


def _until(stop: threading.Event, supervisor: Supervisor, what: str, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not stop.is_set() and not done():
        supervisor.check()
        refused = [child for child in supervisor.children if child.final_code is not None]
        if refused:
            raise KtError(f"{refused[0].name} refused to start; what it said stands above")
        if time.monotonic() > deadline:
            raise KtError(f"{what} was not ready within {START_SECONDS:.0f} s")
        stop.wait(0.1)
