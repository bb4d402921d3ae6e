"""A node as a real process, and clients of whatever server the contracts are asked of."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Queue
from types import TracebackType
from typing import Any, Self

import grpc
import pytest
import structlog

from kt_es.errors import KtError
from kt_es.eventstore.driver import (
    EventStoreDBClient,
    EventStoreDBClientException,
    NewEvent,
    ServiceUnavailable,
    StreamState,
    name_of,
)
from kt_es.node.server import NodeConfig, serve
from kt_es.process.signals import stop_event

ErrorParts = tuple[grpc.StatusCode, str, dict[str, str]]
PATIENCE = 30.0  # seconds until a test gives up waiting; nothing is expected to take that long


class NodeProcess:
    """``python -m kt_es.node`` on a free port; can be killed and started again on the same data."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.errors = data / "stderr.txt"
        self.address = ""
        self._process: subprocess.Popen[str] | None = None

    @property
    def uri(self) -> str:
        return f"esdb://{self.address}?Tls=false"

    def start(self) -> Self:
        listen = self.address or "127.0.0.1:0"
        command = [sys.executable, "-m", "kt_es.node", "--data", str(self.data), "--listen", listen]
        self.data.mkdir(parents=True, exist_ok=True)
        with self.errors.open("ab") as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        self._process = process
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, self.errors.read_text()
        self.address = address
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def ended(self) -> int:
        """Wait until it ends by itself; the exit code."""
        assert self._process is not None
        return self._process.wait(PATIENCE)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        code = process.wait(PATIENCE)
        assert process.stdout is not None
        process.stdout.close()
        return code

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(signal.SIGKILL)


class ServedNode:
    """A node as ``config`` says, in a process of its own, as a context manager. ``address`` is "host:port".

    Its server runs on an event loop, and gRPC's Python library is not made for such a server and for clients
    without one in the same process.
    """

    def __init__(self, config: NodeConfig) -> None:
        self.address = ""
        spawn = multiprocessing.get_context("spawn")
        self._ours, self._theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(config, self._theirs), daemon=True)

    def start(self) -> ServedNode:
        """Returns once the node listens; raises what ``serve`` would."""
        self._process.start()
        # So that the end of a node that says nothing is heard.
        self._theirs.close()
        said = self._heard()
        if isinstance(said, KtError):
            self._process.join()
            raise said
        assert isinstance(said, str)
        self.address = said
        return self

    def stop(self) -> None:
        """Returns once the data is closed; raises if the node had failed."""
        self._process.terminate()
        said = self._heard()
        self._process.join()
        if said is not None:
            raise said

    def _heard(self) -> Any:
        assert self._ours.poll(PATIENCE), "the node says nothing"
        return self._ours.recv()

    def __enter__(self) -> ServedNode:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _serve(config: NodeConfig, outcome: Connection) -> None:
    """Run a node; tell its address, and at the end its error or None."""
    os.environ["GRPC_VERBOSITY"] = "NONE"
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    try:
        serve(config, stop_event(), on_ready=outcome.send)
    except KtError as error:
        outcome.send(error)
    else:
        outcome.send(None)


def event(number: int = 0, type_: str = "T", **fields: Any) -> NewEvent:
    return NewEvent(type=type_, data=b"%d" % number, content_type="application/octet-stream", **fields)


def events(count: int, start: int = 0) -> list[NewEvent]:
    return [event(number) for number in range(start, start + count)]


def numbers(recorded: Any) -> list[int]:
    return [int(one.data) for one in recorded]


def positions(recorded: Any) -> list[int]:
    return [one.stream_position for one in recorded]


def raised(call: Any, *args: Any, **kwargs: Any) -> str:
    """The name of the client's exception, "" if there was none."""
    try:
        result = call(*args, **kwargs)
        if hasattr(result, "__next__"):
            list(result)
    except EventStoreDBClientException as error:
        return name_of(error)
    return ""


def error_parts(call: Callable[..., Any], *args: Any, **kwargs: Any) -> ErrorParts:
    """Status, text and trailers of the error that the client's exception was made of."""
    with pytest.raises(EventStoreDBClientException) as caught:
        call(*args, **kwargs)
    return unpacked(caught.value)


def unpacked(error: BaseException | None) -> ErrorParts:
    while error is not None and not isinstance(error, grpc.RpcError):
        error = error.__context__
    cause: Any = error
    assert cause is not None
    trailers = {key: value for key, value in cause.trailing_metadata() if isinstance(value, str)}
    return cause.code(), cause.details(), trailers


def append(
    client: EventStoreDBClient, stream: str, count: int, expected: Any = StreamState.NO_STREAM
) -> None:
    """``count`` events whose data are the revisions they get."""
    start = 0 if expected is StreamState.NO_STREAM else expected + 1
    client.append_to_stream(stream, current_version=expected, events=events(count, start))


def read_group(esdb: Any, name: str, *, ack: bool = False, **how: Any) -> Reader:
    """Read the persistent subscription "g" of the stream ``name``."""
    return Reader(esdb.read_subscription_to_stream("g", name, **how), ack=ack)


@contextmanager
def given_or_own_node(data: Path) -> Iterator[str]:
    """The connection string of the log that KT_TEST_ESDB names, else of a node over ``data``."""
    given = os.environ.get("KT_TEST_ESDB")
    if given:
        yield given
        return
    with NodeProcess(data) as node:
        yield node.uri


def until(condition: Any) -> None:
    """Wait for what the server does on its own time."""
    deadline, pause = time.monotonic() + PATIENCE, threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.02)


def reached(client: Any) -> None:
    """Wait until ``client`` gets an answer from a node that was started again.

    gRPC shares connections among the clients of a process. Where another client was refused while the node
    was away, the first call of a new client may fail for the same reason.
    """

    def answers() -> bool:
        try:
            client.get_current_version("reached")
        except ServiceUnavailable:
            return False
        return True

    until(answers)


class Reader:
    """A subscription read in a thread of its own; ``take`` gives what came, in order."""

    def __init__(self, subscription: Any, *, ack: bool = False) -> None:
        self.subscription = subscription
        self.failure: BaseException | None = None
        self._ack = ack
        self._came: Queue[Any] = Queue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for recorded in self.subscription:
                if self._ack:
                    self.subscription.ack(recorded)
                self._came.put(recorded)
        except EventStoreDBClientException as error:
            self.failure = error
        self._came.put(None)

    def one(self) -> Any:
        recorded = self._came.get(timeout=PATIENCE)
        assert recorded is not None, f"the subscription ended: {self.failure!r}"
        return recorded

    def take(self, count: int) -> list[Any]:
        return [self.one() for _ in range(count)]

    def ends(self) -> str:
        """Wait for the end; the name of the exception with which it came."""
        while self._came.get(timeout=PATIENCE) is not None:
            pass
        assert self.failure is not None, "the subscription ended without an exception"
        return name_of(self.failure)

    @property
    def waiting(self) -> int:
        """How many have come that were not taken."""
        return self._came.qsize()

    def stop(self) -> None:
        self.subscription.stop()
        self._thread.join(PATIENCE)

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
