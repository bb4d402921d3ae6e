"""One process of a front end with workers: the replica, or a worker.

  python -m projections.member CHANNEL [DOOR]

Both arguments are numbers of sockets that the process inherits: of its channel to ``workers``, and of the
door through which it gets its connections. The process ends after the requests under way when it is told to,
when its channel ends, and on SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from queue import SimpleQueue
from typing import Any

import structlog

from kt_es.errors import KtError
from kt_es.eventstore.streams import StreamNames
from kt_es.ledger.anchor import check_commit
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.rocks_followed import FollowedStore
from kt_es.ledger.stores import opened_ledger
from kt_es.ledger.tables import FAMILIES
from kt_es.process.channels import Channel
from kt_es.process.merging import snapshot
from kt_es.process.outage import Outage
from kt_es.process.signals import Failure, Reload, Worker, stop_event
from kt_es.server.clients import HttpConnections
from projections.followed import Announcer, FollowedReplica, ReplicaState
from projections.frontend import LIVE, FrontendSettings, answering, grpc_server, inputs_of, serving
from projections.messages import Failed, Page, Ready, Reread, Role, Samples, Start, Stop, Used
from projections.service import FrontendService

STATE_INTERVAL = 0.5
SAMPLES_INTERVAL = 1.0
USES_INTERVAL = 0.1
"""Seconds between two messages about the use by clients. A client may gain this long at each worker."""
GRACE = 5.0

_LOG = structlog.get_logger("kt_es.server")


@dataclass(slots=True)
class Member:
    """What both roles share: the channel, its messages, and the settings that may change.

    ``listen`` sets what is called with messages for the service. Until then they wait.
    """

    channel: Channel
    start: Start
    stop: threading.Event
    settings: FrontendSettings = field(init=False)
    hangups: SimpleQueue[bool] = field(default_factory=SimpleQueue)
    _pages: dict[int, Future[bytes]] = field(default_factory=dict)
    _numbers: count[int] = field(default_factory=count)
    _lock: threading.Lock = field(default_factory=threading.Lock)  # guards what follows
    _waiting: list[Any] = field(default_factory=list)
    _heard: Callable[[Any], None] | None = None

    def __post_init__(self) -> None:
        self.settings = self.start.settings

    def received(self, message: object) -> None:
        match message:
            case Stop():
                self.stop.set()
            case Reread():
                self.settings = message.settings
                self.hangups.put(True)
            case Page():
                asked = self._pages.pop(message.number, None)
                if asked is not None:
                    asked.set_result(message.page)
            case _:
                with self._lock:
                    if self._heard is None:
                        self._waiting.append(message)
                        return
                self._heard(message)

    def listen(self, heard: Callable[[Any], None]) -> None:
        """Call ``heard`` with each message for the service, in order."""
        with self._lock:
            for message in self._waiting:
                heard(message)
            self._waiting.clear()
            self._heard = heard

    def reload(self) -> Reload[FrontendSettings]:
        return Reload(self.start.settings, lambda: self.settings, LIVE)

    def ask(self, service: FrontendService) -> Future[bytes]:
        """Ask for the page of metrics of all processes. Only in the thread of the event loop."""
        number, asked = next(self._numbers), Future[bytes]()
        asked.set_running_or_notify_cancel()
        self._pages[number] = asked
        self.channel.send(Samples(snapshot(service.metrics.registry), number))
        return asked

    def report(self, service: FrontendService) -> Worker:
        """Return a thread that sends the metrics of this process regularly."""

        def run(stop: threading.Event) -> None:
            while not stop.wait(SAMPLES_INTERVAL):
                self.channel.send(Samples(snapshot(service.metrics.registry)))

        return Worker("samples", run, service.frontend.failed)


def keep_replica(member: Member) -> None:
    """Keep the replica until the member is stopped. Raises what ``frontend.serve`` raises."""
    settings, stop = member.settings, member.stop
    failure = Failure(stop)
    vrf, _, connect_log = inputs_of(settings)
    with ExitStack() as stack:
        where = settings.data, None, settings.origin, settings.signer_key
        opening = opened_ledger(*where, stop=stop, outage=Outage("storage", _LOG), answers=True)
        ledger = stack.enter_context(opening)
        if ledger is None:
            return
        check_commit(ledger)
        service = FrontendService(
            ledger,
            StreamNames(settings.directory),
            vrf,
            connect_log,
            failure,
            data=settings.data,
            max_backlog=settings.max_backlog,
            observers=[Announcer(member.channel.send)],
        )
        reporting = member.report(service)
        for begin, end in ((service.start, service.stop), (reporting.start, lambda: reporting.end(GRACE))):
            stack.callback(end)
            begin()
        member.channel.send(_state(service))
        member.channel.send(Ready())
        while not stop.wait(STATE_INTERVAL):
            member.channel.send(_state(service))
    if (error := failure.error or service.directory.failure) is not None:
        raise error


def _state(service: FrontendService) -> ReplicaState:
    directory = service.directory
    return ReplicaState(service.health.troubles(), directory.disk_problem is not None, directory.failure)


def answer(member: Member, door: socket.socket) -> None:
    """Answer clients until the member is stopped. Raises what ``frontend.serve`` raises."""
    settings, stop = member.settings, member.stop
    failure = Failure(stop)
    vrf, tls, connect_log = inputs_of(settings)
    with ExitStack() as stack:
        ledger, followed = _ledger(member, stack)
        if ledger is None:
            return
        check_commit(ledger)
        # Evidence is saved by the process that found it, which is a worker if a client has brought it.
        data = settings.data
        service = answering(settings, ledger, vrf, connect_log, failure, data=data, followed=followed)
        service.metrics.ask = partial(member.ask, service)
        if followed is not None:
            followed.tell(member.start.state)
            # Epochs that were announced before.
            followed.renew()
        serve = serving(
            settings,
            service,
            tls,
            failure,
            door,
            reload=member.reload(),
            hangups=member.hangups,
            beside=partial(_begin, member, service, followed),
            also=grpc_server(settings, service),
        )
        reporting = member.report(service)
        stack.enter_context(serve)
        stack.callback(lambda: reporting.end(GRACE))
        reporting.start()
        member.channel.send(Ready())
        while not stop.wait(1.0):
            pass
        service.release_waiting()
    member.channel.send(Samples(snapshot(service.metrics.registry)))
    if (error := failure.error) is not None:
        raise error


def _ledger(member: Member, stack: ExitStack) -> tuple[Ledger | None, FollowedReplica | None]:
    """Open what the worker reads: the shared store, or the data directory of the replica."""
    settings = member.settings
    origin, key = settings.origin, settings.signer_key
    if settings.sharing is not None:
        outage = Outage("storage", _LOG)
        opening = opened_ledger(
            None, settings.sharing, origin, key, stop=member.stop, outage=outage, answers=True
        )
        return stack.enter_context(opening), None
    full: list[FollowedReplica] = []
    store = FollowedStore(
        settings.data, FAMILIES, member.start.scratch, lambda: any(f.is_full() for f in full)
    )
    stack.enter_context(closing(store))
    ledger = Ledger(store, origin, key)
    full.append(followed := FollowedReplica(ledger, store))
    return ledger, followed


def _begin(
    member: Member,
    service: FrontendService,
    followed: FollowedReplica | None,
    loop: asyncio.AbstractEventLoop,
    connections: HttpConnections,
) -> None:
    """Hear of the replica, and exchange with other workers what clients used. In the thread of the loop."""
    clients = service.clients
    clients.is_shared = True
    clients.used_elsewhere(member.start.used)

    def hear(message: Any) -> None:
        if isinstance(message, Used):
            # The loop has ended when the process is about to end.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(clients.used_elsewhere, message.uses)
        elif followed is not None:
            followed.tell(message)

    member.listen(hear)
    told = -1

    def exchange() -> None:
        nonlocal told
        uses = clients.uses()
        if uses or told != len(connections):
            told = len(connections)
            member.channel.send(Used(uses, told))
        loop.call_later(USES_INTERVAL, exchange)

    exchange()


def main(arguments: list[str]) -> int:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = stop_event()
    channel = Channel(socket.socket(fileno=int(arguments[0])), "workers")
    try:
        start: Start = channel.receive()
    except EOFError:
        return 1
    start.prepare(start.name)
    member = Member(channel, start, stop)
    channel.start(member.received, stop.set)
    try:
        if start.role is Role.REPLICA:
            keep_replica(member)
        else:
            answer(member, socket.socket(fileno=int(arguments[1])))
    except KtError as error:
        channel.send(Failed(error))
        channel.flush(GRACE)
        return error.exit_code
    channel.flush(GRACE)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
