"""Single requests to a server that is measured, and the wait until it is ready."""

from __future__ import annotations

import http.client
import json
import subprocess
import threading
import time
from contextlib import closing

from kt_es.api.codec import present_members
from kt_es.api.operations import READY
from kt_es.config.tables import Address
from kt_es.errors import KtError

START_SECONDS = 120.0


def json_body(request: object) -> bytes:
    """Return the body for a request of ``kt_es.api.models``."""
    return json.dumps(present_members(request)).encode()


def ask(where: Address, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Return status and body of an answer."""
    with closing(http.client.HTTPConnection(where.host, where.port, timeout=10)) as connection:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        return response.status, response.read()


def until_ready(
    process: subprocess.Popen[bytes], where: Address, path: str = READY.path, name: str = "the front end"
) -> None:
    """Wait until a process answers 200 for ``path``. Raises ``KtError`` if it ends, or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if (code := process.poll()) is not None:
            raise KtError(f"{name} ended with exit code {code}: see the log above")
        try:
            if ask(where, "GET", path)[0] == http.client.OK:
                return
        except OSError:
            # Nothing listens yet.
            pass
        threading.Event().wait(0.01)
    raise KtError(f"{name} was not ready within {START_SECONDS:.0f} s: see the log above")
