"""A front end of several processes: a replica, workers that answer, and this one, which keeps them running.

This process listens, and hands each connection over to the worker that has the fewest. Connections of gRPC go
from the system to a worker at once: this process only keeps their port. It relays what the processes tell
each other, and adds up their metrics. It reads no request and no data. Without it the others
end. With a shared store there is no replica: each worker takes the epochs itself.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import structlog

from kt_es.errors import ConfigError
from kt_es.extras import require
from kt_es.formats.registration import OPEN
from kt_es.process.signals import Failure, Reload, Reloaded, Worker, reloading
from kt_es.process.tls import both_or_none, read_certificate
from kt_es.server.handing import hand_over
from kt_es.server.listening import listening_at, url_of
from kt_es.server.reserving import host_and_port, reserved_port
from projections.crew import Crew
from projections.frontend import GRPC, LIVE, FrontendSettings, inputs_of, warn_if_open
from projections.messages import Reread

_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_TICK = 0.1
_MEMORY = Path("/dev/shm")  # noqa: S108 - a new directory below it, with a random name

_LOG = structlog.get_logger("kt_es.server")


def serve_by_workers(
    settings: FrontendSettings,
    prepare: Callable[[str], None],
    stop: threading.Event,
    reread: Callable[[], FrontendSettings] | None = None,
    on_ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve with ``settings.workers`` workers until ``stop``, as ``frontend.serve`` does with one process.

    A process that dies is started again. SIGUSR1 replaces the workers one by one, each when its successor is
    ready. Call it in the main thread.

    Args:
        settings: The settings at the start. Clients have the limits over all workers; of the connections and
            the bytes that a process may hold, each worker has its part.
        prepare: Called in each process with its name, to configure its log; a function that can be pickled.
        stop: Ends the call.
        reread: Returns the new settings after each SIGHUP.
        on_ready: Called with the URL once all workers listen.

    Raises what ``frontend.serve`` raises.
    """
    failure = Failure(stop)
    # What no process could use is refused here.
    inputs_of(settings)
    with ExitStack() as stack:
        parent = _MEMORY if os.access(_MEMORY, os.W_OK | os.X_OK) else None
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kt-frontend-", dir=parent)))
        started = settings
        if settings.grpc_port is not None:
            require("grpc", GRPC)
            port = stack.enter_context(reserved_port(settings.host, settings.grpc_port, "grpc_port"))
            started = replace(settings, grpc_port=port)
        crew = Crew(_part(settings, started), prepare, scratch, failure)
        stack.callback(crew.stop)
        if not crew.begin(stop):
            _end(crew, failure)
            return
        listener = stack.enter_context(listening_at(settings.host, settings.port))
        url = url_of(settings.host, listener, "http" if settings.tls_cert is None else "https")
        accepting = Worker("accept", partial(_accept, listener, crew), failure)
        accepting.start()
        stack.callback(lambda: accepting.end(2.0))
        reload = Reload(settings, reread, LIVE, partial(_applied, crew, started))
        stack.enter_context(reloading(reload))
        stack.enter_context(_restarting(crew))
        grpc = {} if started.grpc_port is None else {"grpc": host_and_port(settings.host, started.grpc_port)}
        _LOG.info("serving", url=url, **grpc, directory=settings.directory, workers=settings.workers)
        warn_if_open(settings.host, OPEN in settings.registration.ways)
        on_ready(url)
        while not stop.wait(_TICK):
            crew.tend()
    _end(crew, failure)
    _LOG.info("stopped", directory=settings.directory)


def _end(crew: Crew, failure: Failure) -> None:
    if (error := failure.error or crew.error) is not None:
        raise error


def _part(settings: FrontendSettings, started: FrontendSettings) -> FrontendSettings:
    """Return the settings of a worker: those that may change, with its part of the connections."""
    connections = max(1, settings.limits.connections // started.workers)
    return replace(
        started,
        max_backlog=settings.max_backlog,
        limits=replace(settings.limits, connections=connections),
        tls_cert=settings.tls_cert,
        tls_key=settings.tls_key,
        registration=settings.registration,
    )


def _applied(crew: Crew, started: FrontendSettings, _: FrontendSettings, new: FrontendSettings) -> Reloaded:
    """Pass new settings on. Raises ``ConfigError`` for a certificate that no worker could serve."""
    files = both_or_none(new.tls_cert, new.tls_key)
    if files is not None:
        read_certificate(*files)
    if (files is None) != (started.tls_cert is None):
        raise ConfigError("HTTPS cannot be switched on or off while the front end runs: start it again")
    crew.settings = _part(new, started)
    crew.tell_all(Reread(crew.settings))
    return Reloaded()


def _accept(listener: socket.socket, crew: Crew, stop: threading.Event) -> None:
    """Hand connections over. While no worker is ready, they wait in the queue of the system."""
    listener.settimeout(_TICK)
    while not stop.is_set():
        try:
            accepted, _ = listener.accept()
        except (TimeoutError, ConnectionError):
            continue
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            stop.wait(_TICK)
            continue
        with accepted:
            give = partial(hand_over, accepted=accepted)
            while not crew.give(give) and not stop.wait(_TICK):
                pass


@contextmanager
def _restarting(crew: Crew) -> Iterator[None]:
    """Replace the workers one by one after each SIGUSR1, in a thread."""
    asked: SimpleQueue[bool] = SimpleQueue()
    ending = threading.Event()

    def run(_: threading.Event) -> None:
        while asked.get():
            crew.replace_workers(ending)

    thread = Worker("restarting", run, crew.failed)
    before = signal.signal(signal.SIGUSR1, lambda *_: asked.put(True))
    thread.start()
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)
        ending.set()
        asked.put(False)
        thread.end(5.0)
