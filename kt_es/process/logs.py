"""The log of a process: one JSON object on each line of standard error, for messages from every source.

Our own code logs with structlog. The log also takes messages of libraries: records of ``logging``, warnings
of the module ``warnings``, exceptions that ended a thread or that could not be raised, and text that Python
code prints on standard error. The C++ code of gRPC and RocksDB writes nothing there: ``GRPC_VERBOSITY``
silences gRPC, and RocksDB has its own log file.

The log shows the type and the location of an unexpected exception, but not its message, which may contain
data from a request.
"""

from __future__ import annotations

import atexit
import io
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

from kt_es.errors import KtError
from kt_es.process.log_filters import Repeats, without_password
from kt_es.process.space import lost_lines

TICK = 5.0
"""Seconds between two checks for counts that are due."""
MAX_LINE = 8192
"""Characters that may be printed on standard error without a line end before they become a line."""
_FRAMES = 12

_LOG = structlog.get_logger("kt_es.process")


def configure(
    process: str,
    stream: TextIO,
    renderer: Sequence[Processor],
    level: int = logging.INFO,
    *,
    serves: bool = True,
    with_words: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Configure this process to log to ``stream``. An earlier configuration ends.

    Args:
        process: The name of the process, a member of each line.
        renderer: The processors that make the text of a line.
        serves: Also log the messages of libraries. A command that answers and ends logs only its own.
        with_words: Write the command's messages to the user as lines of the log; see ``takes_words``.
    """
    release()
    writer = _Writer(stream)
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    repeats = Repeats(lambda event: _write(event, [stamp, *renderer], writer), clock)

    # A context variable does not work here, because a new thread does not inherit it.
    def name_process(_: object, __: str, event: EventDict) -> EventDict:
        return {**event, "process": process}

    structlog.configure(
        processors=[
            name_process,
            _with_exception,
            redacted,
            structlog.processors.add_log_level,
            repeats,
            stamp,
            *renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: writer,
    )
    _taken.append(_Taken(repeats, stream, serves=serves, with_words=with_words))


def release() -> None:
    """Write the outstanding counts, and restore standard error and the hooks of the interpreter."""
    while _taken:
        _taken.pop().release()
        structlog.reset_defaults()


def words() -> TextIO:
    """Return the stream for a command's messages to the user: standard error as it was before the log."""
    return _taken[-1].stream if _taken and _taken[-1].has_taken else sys.stderr


def takes_words() -> bool:
    """Return whether a command's messages to the user are written as lines of the log."""
    return bool(_taken) and _taken[-1].with_words


def redacted(_: object, __: str, event: EventDict) -> EventDict:
    """Remove passwords from addresses, because errors of libraries quote connection strings."""
    return {key: _redacted(value) for key, value in event.items()}


def _redacted(value: object) -> object:
    if isinstance(value, str):
        return without_password(value)
    if isinstance(value, Mapping):
        return {key: _redacted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(item) for item in value]
    return value if isinstance(value, int | float | None) else without_password(str(value))


def exception_members(error: BaseException) -> EventDict:
    """Describe an exception as members of a line: type and location, and the message if it is not private."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    members: EventDict = {
        "error": type(error).__name__,
        "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }
    return {**members, "problem": str(error)} if isinstance(error, KtError | OSError) else members


def _with_exception(_: object, __: str, event: EventDict) -> EventDict:
    """Replace ``exc_info`` by members. It is true, an exception, or a result of ``sys.exc_info``."""
    given = event.pop("exc_info", None)
    error = given[1] if isinstance(given, tuple) else given
    if error is True:
        error = sys.exc_info()[1]
    return {**exception_members(error), **event} if isinstance(error, BaseException) else event


class _Writer:
    """The logger that structlog wraps. It writes one line at a time.

    A line that cannot be written, for instance because the disk is full, does not stop the caller. Lost lines
    are counted. A line with their number follows the first line that can be written again.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        # Reentrant, for the same reason as in ``Repeats``.
        self._lock = threading.RLock()
        self._lost = 0

    def msg(self, line: str) -> None:
        with self._lock:
            lost = self._lost + lost_lines(self._stream)
            try:
                self._stream.write(f"{line}\n")
                self._stream.flush()
            # ValueError: the stream is closed. RuntimeError: a finalizer logs while its thread is writing.
            except (OSError, ValueError, RuntimeError):
                self._lost += 1
                return
            if lost_lines(self._stream):
                return
            self._lost = 0
        if lost:
            _LOG.error("log lines could not be written", lines=lost)

    log = debug = info = warning = warn = error = critical = exception = fatal = msg


def _write(event: EventDict, processors: Sequence[Processor], writer: _Writer) -> None:
    line: Any = event
    for processor in processors:
        line = processor(None, str(event["level"]), line)
    writer.msg(line)


class _Records(logging.Handler):
    """Logs records of ``logging``, including those of ``warnings`` and asyncio."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        _LOG.log(
            max(record.levelno, logging.WARNING), _said(record), logger=record.name, exc_info=error or False
        )


def _said(record: logging.LogRecord) -> str:
    """Return the message of a record. asyncio appends the ``repr`` of objects, which is left out."""
    text = record.getMessage()
    if record.name != "asyncio":
        return text
    first = text.partition("\n")[0]
    return "Exception in callback" if first.startswith("Exception in callback") else first


class Printed(io.TextIOBase):
    """Replaces ``sys.stderr``, so that text that Python code prints there becomes lines of the log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.RLock()
        self._rest = ""

    def write(self, text: str) -> int:
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            if len(self._rest) > MAX_LINE:
                lines.append(self._rest)
                self._rest = ""
        for line in lines:
            if line.strip():
                _LOG.warning("printed", line=line)
        return len(text)

    def end(self) -> None:
        """Log the last line if it has no line end, because nothing more is printed."""
        if self._rest:
            self.write("\n")

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


class _Taken:
    """What the log replaces in the interpreter until ``release``, and the thread that writes due counts."""

    def __init__(self, repeats: Repeats, stream: TextIO, *, serves: bool, with_words: bool) -> None:
        self.stream = stream
        self.has_taken = serves
        self.with_words = with_words
        self._repeats = repeats
        self._stop = threading.Event()
        self._records = _Records(logging.WARNING)
        self._hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
        self._printed = Printed(stream)
        self._stderr = sys.stderr
        self._ticking = threading.Thread(target=self._tick, name="log counts", daemon=True)
        if serves:
            self._take()
        atexit.register(self.release)

    def _take(self) -> None:
        logging.getLogger().addHandler(self._records)
        logging.captureWarnings(True)
        sys.excepthook = _ended_by
        threading.excepthook = _ended_thread
        sys.unraisablehook = _unraisable
        sys.stderr = self._printed
        self._ticking.start()

    def _tick(self) -> None:
        while not self._stop.wait(TICK):
            self._repeats.tick()

    def release(self) -> None:
        atexit.unregister(self.release)
        self._stop.set()
        if self.has_taken:
            self._ticking.join()
            self._printed.end()
            if sys.stderr is self._printed:
                sys.stderr = self._stderr
            sys.excepthook, threading.excepthook, sys.unraisablehook = self._hooks
            logging.captureWarnings(False)
            logging.getLogger().removeHandler(self._records)
        self._repeats.end()


_taken: list[_Taken] = []


def _ended_by(_: type[BaseException], error: BaseException, __: object) -> None:
    _LOG.critical("the process ends by an exception", **exception_members(error))


def _ended_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is not None and not isinstance(ended.exc_value, SystemExit):
        name = None if ended.thread is None else ended.thread.name
        _LOG.error("a thread ended by an exception", thread=name, **exception_members(ended.exc_value))


def _unraisable(raised: Any) -> None:
    what = raised.err_msg or "an exception could not be raised"
    members = {} if raised.exc_value is None else exception_members(raised.exc_value)
    _LOG.error(what, of=type(raised.object).__name__, **members)
