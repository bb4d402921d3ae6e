"""Ends and reloads a process that serves: its signals, and the threads that it stops.

SIGTERM and SIGINT stop the process, and SIGHUP makes it reload its settings. A SIGHUP that arrives too early
is remembered until a ``reloading`` block begins. There is one exception: if the terminal in which the process
was started is gone, SIGHUP is treated as SIGTERM.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import structlog

from kt_es.errors import KtError

GRACE = 5.0
"""Seconds that a stopped thread may take, unless its user says otherwise."""

_LOG = structlog.get_logger("kt_es.process")
# SimpleQueue is reentrant, so a signal handler may put into it whatever the handler interrupts.
_HANGUPS: SimpleQueue[bool] = SimpleQueue()


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The names of changed settings: those that are in force now, and those that need a restart."""

    changed: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()


def stop_event() -> threading.Event:
    """Return an event that SIGINT and SIGTERM set. A second signal ends the process at once.

    Call it in the main thread.
    """
    stop, asked = threading.Event(), False

    def handle(number: int, _frame: object) -> None:
        nonlocal asked
        if asked:
            raise SystemExit(128 + number)
        asked = True
        # A thread sets the event, because the interrupted code may hold the lock of the event.
        threading.Thread(target=stop.set, daemon=True).start()

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    return stop


def listen() -> None:
    """Handle SIGHUP from now on, so that it does not end this process. Only the main thread may handle it.

    A call in another thread does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    terminals = [number for number in (1, 2) if os.isatty(number)]

    def handle(*_: object) -> None:
        gone = [number for number in terminals if not os.isatty(number)]
        if gone:
            # A write to the lost terminal would fail and look like a failure of this process.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for number in gone:
                os.dup2(nowhere, number)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        _HANGUPS.put(True)

    signal.signal(signal.SIGHUP, handle)
    # The parent may have blocked the signal until now: see ``held``.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


@contextmanager
def held() -> Iterator[None]:
    """Block SIGHUP for processes that start in this block: each receives it once it calls ``listen``."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def reloading(reload: Callable[[], Reloaded], hangups: SimpleQueue[bool] = _HANGUPS) -> Iterator[None]:
    """Call ``reload`` after each SIGHUP while the block runs, in a separate thread, one call at a time.

    Args:
        reload: Reads the settings again. If it raises, it must have changed nothing; the error is logged.
        hangups: Holds True for each signal.
    """

    def run() -> None:
        count = 0
        while hangups.get():
            count += 1
            _reload(reload, count)

    thread = threading.Thread(target=run, name="reloading", daemon=True)
    thread.start()
    try:
        yield
    finally:
        hangups.put(False)
        thread.join()


def _reload(reload: Callable[[], Reloaded], hangup: int) -> None:
    """Call ``reload`` and log the result. ``hangup`` numbers the signals, so that no two lines are equal."""
    try:
        done = reload()
    except KtError as error:
        _LOG.error("not reloaded: everything stays as it was", hangup=hangup, reason=str(error))
    except Exception as error:  # noqa: BLE001 - a bug in what reads settings must not end what serves
        reason = f"{type(error).__name__}: {error}"
        _LOG.error("not reloaded: everything stays as it was", hangup=hangup, reason=reason)
    else:
        _LOG.info(
            "reloaded", hangup=hangup, changed=list(done.changed), needs_restart=list(done.needs_restart)
        )


_Settings = TypeVar("_Settings")


@dataclass(slots=True)
class Reload(Generic[_Settings]):
    """Reads the settings of a process again, for ``reloading``.

    Args:
        started: The settings with which the process has started.
        reread: Returns the new settings; None if they cannot change.
        live: Names of the settings that ``apply`` brings into force. All others need a restart.
        apply: Called with the settings before and the new ones. If it raises, it must have changed nothing.
    """

    started: _Settings
    reread: Callable[[], _Settings] | None
    live: tuple[str, ...] = ()
    apply: Callable[[_Settings, _Settings], Reloaded] = lambda _, __: Reloaded()
    current: _Settings = field(init=False)

    def __post_init__(self) -> None:
        self.current = self.started

    def __call__(self) -> Reloaded:
        new = self.started if self.reread is None else self.reread()
        done = self.apply(self.current, new)
        self.current = new
        return Reloaded(done.changed, differing(self.started, new, but=self.live) + done.needs_restart)


def differing(old: Any, new: Any, *, but: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the names of the fields in which two values of one dataclass differ, except those in ``but``."""
    names = [each.name for each in fields(old) if each.name not in but]
    return tuple(name for name in names if getattr(old, name) != getattr(new, name))


@dataclass(slots=True)
class Failure:
    """The first error of the threads of a process. It sets ``stop``. Any thread may call it."""

    stop: threading.Event
    error: KtError | None = None

    def __call__(self, error: KtError) -> None:
        self.error = self.error or error
        self.stop.set()


class Worker:
    """Runs ``run(stop)`` in a thread. ``run`` must return soon after the event ``stop`` is set.

    If an error ends ``run``, that thread calls ``failed`` with the error, unless ``stop`` is set already. An
    error that is no ``KtError`` becomes an ``unforeseen`` one.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[threading.Event], None],
        failed: Callable[[KtError], None],
        unforeseen: Callable[[str], KtError] = KtError,
    ) -> None:
        self.name = name
        self._run = run
        self._failed = failed
        self._unforeseen = unforeseen
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end, from any thread. ``join`` waits for the end."""
        self._stop.set()

    def join(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for the end of the thread; return whether it has ended."""
        if self._thread.ident is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def end(self, timeout: float) -> None:
        """Stop the thread and wait for its end. A thread that has not ended in time is logged."""
        self.stop()
        if not self.join(timeout):
            _LOG.warning("threads did not end in time", threads=[self.name])

    def _work(self) -> None:
        error: KtError
        try:
            self._run(self._stop)
        except KtError as known:
            error = known
        except Exception as unknown:  # noqa: BLE001 - a thread that dies unseen would look like silence
            error = self._unforeseen(f"{self.name} failed: {type(unknown).__name__}: {unknown}")
        else:
            return
        # Errors are expected while the things that the thread uses are being closed.
        if not self.stopping:
            self._failed(error)


@contextmanager
def working(
    name: str, run: Callable[[threading.Event], None], ending: threading.Event, grace: float = GRACE
) -> Iterator[None]:
    """Run ``run(stop)`` in a thread while the block runs. It may take up to ``grace`` seconds to stop.

    An error of the thread sets ``ending``, and is raised when the block ends.
    """
    failure = Failure(ending)
    worker = Worker(name, run, failure)
    worker.start()
    try:
        yield
    finally:
        worker.end(grace)
    if failure.error is not None:
        raise failure.error
