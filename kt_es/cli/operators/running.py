"""The processes that ``kt up`` runs, and the state file that describes them."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import httpx

from kt_es.cli.operators.setup import NewDirectory, begin_queue
from kt_es.cli.output import STATE_FILE, Output
from kt_es.cli.supervisor import Supervisor
from kt_es.config import FILE_NAME, Address, Settings
from kt_es.errors import KtError, MisfitError, UnavailableError
from kt_es.eventstore.connecting import connect
from kt_es.process.files import PUBLIC, replace_file
from kt_es.process.network import uses_proxies
from kt_es.process.signals import reloading

PATIENCE = 10.0
"""Seconds after which ``kt up`` reports what it waits for."""


class RunningDirectory:
    """The processes of one directory. ``new.log`` is the connection string of ``node``.

    ``given`` are the options that must agree with the signed config.
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
        self._is_saved = True
        self._supervisor = Supervisor(output.fail, self._save_state)

    def _save_state(self, pids: dict[str, int]) -> None:
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
            # The processes continue even if the state file, which `kt status` reads, cannot be written.
            if self._is_saved:
                self._output.fail(f"{self._state} cannot be written: {error.strerror}; trying again")
            self._is_saved = False
        else:
            self._is_saved = True

    def until(self, stop: threading.Event, *, verbose: bool) -> int:
        """Run until ``stop``, or until the node refuses. Return the exit code of a process that refused."""
        settings, supervisor, log = self._settings, self._supervisor, self._new.log
        common = ("-q", "--logs", "json" if verbose else "problems", "-c", str(settings.base / FILE_NAME))
        with ExitStack() as stack:
            stack.callback(self._end)
            stack.enter_context(reloading(supervisor.reload))
            words = (*common, *node_arguments(settings), "--listen", str(self._node))
            node = supervisor.start("node", words)
            # Before that, an answer at the address of the node may come from another event log.
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
                if not self._is_saved:
                    self._save_state(supervisor.pids)
                if supervisor.children[0].final_code is not None:
                    break
        codes = [child.final_code for child in supervisor.children if child.final_code is not None]
        return codes[0] if codes else 0

    def _end(self) -> None:
        self._supervisor.stop()
        self._state.unlink(missing_ok=True)

    def _begin(self) -> bool:
        """Begin the queue; return False while the node does not answer, as just after its start."""
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
            # The front end is our own child on this machine, so the name in its certificate does not matter.
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
        # If the clock was set back, the front end answers with a problem. Do not wait for the clock.
        return answer.headers["content-type"] == "application/problem+json" and answer.json().get(
            "reasons"
        ) == ["future-head"]

    def _wait(self, stop: threading.Event, what: str, done: Callable[[], bool]) -> None:
        """Wait for ``what`` without a limit, and report it once: reading a large log takes minutes.

        Raises:
            KtError: a process refused to start.
        """
        begun, is_reported = time.monotonic(), False
        while not stop.is_set() and not done():
            self._supervisor.check()
            refused = [child for child in self._supervisor.children if child.final_code is not None]
            if refused:
                # Use the exit code of the process, because it distinguishes usage from divergence.
                error = KtError(f"{refused[0].name} refused to start; what it said stands above")
                error.exit_code = refused[0].final_code or error.exit_code
                raise error
            if not is_reported and time.monotonic() - begun > PATIENCE:
                is_reported = True
                self._output.note(f"waiting for {what}")
            stop.wait(0.1)


def node_arguments(settings: Settings) -> tuple[str, ...]:
    """Return the arguments of ``kt node`` without its address. The node reads its limits from ``kt.toml``."""
    return ("node", "--data", str(settings.path(settings.node.data)))
