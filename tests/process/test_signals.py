"""SIGHUP in a process that serves: what is read again, what it ends, who gets it too early."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import pytest
from structlog.testing import capture_logs

from kt_es.cli.supervisor import Supervisor
from kt_es.errors import ConfigError
from kt_es.process.signals import Reloaded, differing, reloading
from kt_es.process.tls import both_or_none, read_certificate
from tests.contracts.certificates import certify

PATIENCE = 30.0

SERVES = """
import os, signal, sys, threading
import structlog
from kt_es.process.signals import Reloaded, listen, reloading

stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=stop.set).start())
structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
listen()
def reload():
    os.write(int(sys.argv[1]), b"reloaded")
    return Reloaded()
with reloading(reload):
    os.write(int(sys.argv[1]), b"serving.")
    while not stop.wait(0.2):
        pass
print("good bye", flush=True)
"""


def test_what_is_read_again_is_reported() -> None:
    hangups, called = SimpleQueue[bool](), threading.Semaphore(0)
    answers: list[Callable[[], Reloaded]] = []

    def reload() -> Reloaded:
        try:
            return answers.pop(0)()
        finally:
            called.release()

    def fails() -> Reloaded:
        raise ConfigError("no such certificate")

    def breaks() -> Reloaded:
        raise ValueError("a bug")

    answers += [fails, breaks, lambda: Reloaded(("max_calls",), ("listen",))]
    with capture_logs() as logs:
        with reloading(reload, hangups):
            for _ in range(3):
                hangups.put(True)
                assert called.acquire(timeout=PATIENCE)
        assert hangups.empty()
    assert [line["event"] for line in logs] == [
        "not reloaded: everything stays as it was",
        "not reloaded: everything stays as it was",
        "reloaded",
    ]
    assert logs[0]["reason"] == "no such certificate"
    assert (logs[2]["changed"], logs[2]["needs_restart"]) == (["max_calls"], ["listen"])


def test_a_signal_before_there_is_anything_to_read_is_remembered() -> None:
    hangups, called = SimpleQueue[bool](), threading.Event()
    hangups.put(True)

    def reload() -> Reloaded:
        called.set()
        return Reloaded()

    with reloading(reload, hangups):
        assert called.wait(PATIENCE)


def test_the_fields_that_differ_are_named() -> None:
    @dataclass(frozen=True)
    class Values:
        one: int = 1
        two: int = 2
        three: int = 3

    assert differing(Values(), Values()) == ()
    assert differing(Values(), Values(0, 0, 3), but=("two",)) == ("one",)


class Serving:
    """A process of the program above, which says on a pipe what it does."""

    def __init__(self, stderr: int = subprocess.DEVNULL) -> None:
        self.reads, writes = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVES, str(writes)],
            pass_fds=(writes,),
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
        os.close(writes)

    def output(self) -> str:
        return os.read(self.reads, 8).decode()

    def end(self) -> tuple[int, bytes]:
        out, _ = self.process.communicate(timeout=PATIENCE)
        os.close(self.reads)
        return self.process.returncode, out


def test_sighup_ends_nothing_and_sigterm_does() -> None:
    serving = Serving()
    assert serving.output() == "serving."
    for _ in range(2):
        serving.process.send_signal(signal.SIGHUP)
        assert serving.output() == "reloaded"
    serving.process.send_signal(signal.SIGTERM)
    assert serving.end() == (0, b"good bye\n")


def test_a_terminal_that_is_gone_is_the_end() -> None:
    master, slave = pty.openpty()
    serving = Serving(stderr=slave)
    os.close(slave)
    assert serving.output() == "serving."
    serving.process.send_signal(signal.SIGHUP)
    assert serving.output() == "reloaded"
    os.close(master)
    serving.process.send_signal(signal.SIGHUP)
    assert serving.end() == (0, b"good bye\n")


def test_a_child_that_is_still_starting_is_not_ended(tmp_path: Path) -> None:
    said: list[str] = []
    supervisor = Supervisor(said.append, lambda _: None)
    try:
        child = supervisor.start("node", ("node", "--data", str(tmp_path), "--listen", "127.0.0.1:0"))
        assert child.process is not None
        # Long before it can have asked for the signal.
        supervisor.reload()
        with pytest.raises(subprocess.TimeoutExpired):
            child.process.wait(0)
    finally:
        supervisor.stop()
    assert child.process.returncode in (0, -signal.SIGTERM)
    assert not said


def test_a_certificate_and_its_key_are_read_together(tmp_path: Path) -> None:
    made = certify(tmp_path)
    read = read_certificate(made.certificate, made.key)
    assert read.chain == made.certificate.read_bytes()
    assert not read.expired
    assert "PRIVATE" not in repr(read)
    assert both_or_none(None, None) is None
    with pytest.raises(ConfigError, match="both"):
        both_or_none(made.certificate, None)
