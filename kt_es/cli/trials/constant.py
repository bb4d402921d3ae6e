"""A process that answers every request with the same bytes, through the HTTP server of a front end.

It shows what the server can do without a directory behind it. Its standard input has the answer first. Its
standard output gets the address, and the process ends when its standard input ends.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Histogram

from kt_es.cli.trials.bench_signer import STOP_SECONDS
from kt_es.config.tables import Address
from kt_es.errors import KtError
from kt_es.server.asgi import Scope
from kt_es.server.clients import Clients, HttpConnections
from kt_es.server.guard import Guard
from kt_es.server.limits import DEFAULT_LIMITS
from kt_es.server.listening import http_server, listening_at
from kt_es.server.responses import Answer
from kt_es.server.slots import Slots

_HOST = "127.0.0.1"


@contextmanager
def constant_server(answer: bytes) -> Iterator[Address]:
    """Run the process with ``answer`` as the body of every answer."""
    command = [sys.executable, "-m", "kt_es.cli.trials.constant"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603
        if process.stdin is None or process.stdout is None:
            raise KtError("the process of constant answers has no pipes")
        process.stdin.write(b"%d\n" % len(answer) + answer)
        process.stdin.flush()
        try:
            yield Address(host=_HOST, port=int(process.stdout.readline()))
        finally:
            process.stdin.close()
            process.wait(STOP_SECONDS)


def main() -> None:
    given = sys.stdin.buffer
    body = given.read(int(given.readline()))

    async def answer(_: Scope, __: bytes) -> Answer:
        return Answer(body)

    registry = CollectorRegistry()
    refused = Counter("refused", "Refused requests by reason.", ["why"], registry=registry)
    seconds = Histogram("seconds", "Time of requests.", ["route"], registry=registry)
    clients = Clients(DEFAULT_LIMITS)
    app = Guard(answer, Slots(clients, refused), seconds, refused)
    connections = HttpConnections(clients, DEFAULT_LIMITS.connections, refused)
    with listening_at(_HOST, 0) as listener, http_server(app, connections, listener, _fail):
        print(listener.getsockname()[1], flush=True)
        given.read()


def _fail(error: KtError) -> None:
    sys.exit(str(error))


if __name__ == "__main__":
    main()
