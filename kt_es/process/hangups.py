"""SIGHUP: a process that serves reads its certificates and limits again, and is never ended by it.

The signal may come at any time, also before there is anything to read again: it is remembered until a
``reloading`` block takes it. Where the terminal is gone that the process was started in, there is nobody
left to serve, and SIGHUP is taken for SIGTERM.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from queue import SimpleQueue
from typing import Any

import structlog

from kt_es.errors import KtError

_LOG = structlog.get_logger("kt_es.process")
# The one kind of queue that a signal's handler may put into, whatever it interrupts.
_HANGUPS: SimpleQueue[bool] = SimpleQueue()


@dataclass(frozen=True, slots=True)
class Reloaded:
    """Names of settings: those that are now in force, and those that wait for a restart."""

    changed: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()


def listen() -> None:
    """From now on SIGHUP does not end this process. Does nothing outside of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return
    terminals = [number for number in (1, 2) if os.isatty(number)]

    def handle(*_: object) -> None:
        gone = [number for number in terminals if not os.isatty(number)]
        if gone:
            # What is said on the way out would fail, and look like a failure of this process.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for number in gone:
                os.dup2(nowhere, number)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        _HANGUPS.put(True)

    signal.signal(signal.SIGHUP, handle)
    # A parent may have held the signal back until now: see ``held``.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


@contextmanager
def held() -> Iterator[None]:
    """Processes started in this block get SIGHUP once they ``listen``: it does not end them before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def reloading(reload: Callable[[], Reloaded], hangups: SimpleQueue[bool] = _HANGUPS) -> Iterator[None]:
    """In this block ``reload`` is called after each SIGHUP, one call at a time, in a thread of its own.

    A ``KtError`` of it is logged: it has to leave everything as it was. ``hangups`` has True for a signal.
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
    """``hangup`` is the number of the signal: its line is no repetition of another one's."""
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


def differing(old: Any, new: Any, *, but: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The names of the fields in which two values of one dataclass differ, without those in ``but``."""
    names = [field.name for field in fields(old) if field.name not in but]
    return tuple(name for name in names if getattr(old, name) != getattr(new, name))
