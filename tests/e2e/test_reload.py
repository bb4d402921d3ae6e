"""SIGHUP to real processes: certificates and limits are read again, and nothing ends."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from kt_es.eventstore.driver import EventStoreDBClient, NewEvent, StreamState
from kt_es.node.access.users import add
from tests.contracts.certificates import Certified, certify, trusting
from tests.e2e.processes import SHORT, Running, Stranger, Up, is_alive, running_up, until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_up(tmp_path_factory.mktemp("reload") / "data", *SHORT) as up:
        yield up


class Reloading(Running):
    """A process that is told to read its files again."""

    def reload(self) -> dict[str, Any]:
        """Send SIGHUP; what the process says of it."""
        before = len(self._reloads)
        self.process.send_signal(signal.SIGHUP)
        until(lambda: len(self._reloads) > before, f"it says what came of SIGHUP:\n{self.spoken}")
        return self._reloads[before]

    @property
    def _reloads(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.spoken.splitlines() if line.startswith("{")]
        return [line for line in lines if "reloaded" in line["event"]]


@contextmanager
def ended(process: Reloading) -> Iterator[Reloading]:
    """The process, which SIGTERM ends without a complaint afterwards."""
    try:
        yield process
        assert process.process.poll() is None, process.spoken
        assert process.stop(signal.SIGTERM) == 0, process.spoken
    finally:
        process.stop(signal.SIGKILL)


class Files:
    """The files that a server reads, and the authorities whose certificates they had."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate, self.key = folder / "server.crt", folder / "server.key"
        self.first = self._made("first")
        self.second = self._made("second")
        self.install(self.first)

    def _made(self, name: str) -> Certified:
        (self.folder / name).mkdir()
        return certify(self.folder / name)

    def install(self, made: Certified) -> None:
        shutil.copy(made.certificate, self.certificate)
        shutil.copy(made.key, self.key)

    @property
    def options(self) -> tuple[str, ...]:
        return "--tls-cert", str(self.certificate), "--tls-key", str(self.key)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def https(port: int, made: Certified) -> http.client.HTTPSConnection:
    """A connection of a client that trusts one authority. By address: without a name in the handshake."""
    context = trusting(made.authority)
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=30)
    try:
        connection.connect()
    except OSError:
        connection.close()
        raise
    return connection


def page(connection: http.client.HTTPSConnection, path: str = "/healthz") -> tuple[int, bytes]:
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read()


def asked(port: int, made: Certified, path: str = "/healthz") -> tuple[int, bytes]:
    """The page over a connection of its own."""
    with closing(https(port, made)) as connection:
        return page(connection, path)


def served(frontend: Running) -> int:
    """The port of a front end that serves."""
    return int(json.loads(frontend.wait_for_line('"serving"'))["url"].rpartition(":")[2])


@contextmanager
def frontend(directory: Up, files: Files, *options: str, config: Path | None = None) -> Iterator[Reloading]:
    words = ("-c", config or directory.settings, "frontend", "--log", directory.log_uri)
    where = ("--data", files.folder / "replica", "--listen", "127.0.0.1:0")
    with ended(Reloading(files.folder / "frontend.log", *words, *where, *options)) as process:
        yield process


def test_a_front_end_exchanges_its_certificate(directory: Up, files: Files) -> None:
    with frontend(directory, files, *files.options) as process:
        port = served(process)
        with closing(https(port, files.first)) as old:
            assert page(old)[0] == 200
            socket = old.sock
            files.install(files.second)
            reloads = process.reload()
            assert (reloads["changed"], reloads["needs_restart"]) == (["certificate"], [])
            # The old connection goes on with what it began with; a new one gets the new certificate.
            assert page(old)[0] == 200
            assert old.sock is socket
        assert asked(port, files.second)[0] == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            asked(port, files.first)
        assert process.reload()["changed"] == []
        # By its name as well, and with all that the command does over it.
        someone = Stranger(files.folder / "someone")
        url = f"https://localhost:{port}"
        until(lambda: asked(port, files.second, "/readyz")[0] == 200, "ready")
        reach = ("--server", url, "--vkey", directory.vkey, "--ca", files.second.authority)
        someone.kt("get", "nobody@example.org", *reach, code=3)
        figures = asked(port, files.second, "/metrics")[1]
        assert re.search(rb"^kt_tls_certificate_end_seconds \d", figures, re.MULTILINE)


def broken(files: Files, kind: str) -> str:
    """Break the files; a part of the reason that has to be given."""
    if kind == "no certificate":
        files.certificate.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n")
        return "is not a certificate in PEM"
    if kind == "missing":
        files.key.unlink()
        return "No such file"
    files.certificate.write_bytes(files.second.certificate.read_bytes())
    return "does not belong to the certificate"


@pytest.mark.parametrize("kind", ["no certificate", "missing", "of another key"])
def test_a_broken_certificate_leaves_the_old_one(directory: Up, files: Files, kind: str) -> None:
    with frontend(directory, files, *files.options) as process:
        port = served(process)
        reason = broken(files, kind)
        reloads = process.reload()
        assert reloads["level"] == "error"
        assert reason in reloads["reason"]
        assert asked(port, files.first)[0] == 200
        # Mended, it is taken.
        files.install(files.second)
        assert process.reload()["changed"] == ["certificate"]
        assert asked(port, files.second)[0] == 200


@pytest.mark.parametrize("kind", ["no certificate", "missing", "of another key"])
def test_a_front_end_does_not_start_with_a_broken_certificate(files: Files, kind: str) -> None:
    someone = Stranger(files.folder / "someone")
    data = files.folder / "made"
    reason = broken(files, kind)
    with running_up(data, *SHORT) as up:
        words = ("-c", up.settings, "frontend", "--log", up.log_uri, "--data", files.folder / "replica")
        ran = someone.kt(*words, "--listen", "127.0.0.1:0", *files.options, code=2)
        assert reason in ran.err
        ran = someone.kt(*words, "--listen", "127.0.0.1:0", *files.options[:2], code=2)
        assert "both" in ran.err


def test_limits_come_from_the_settings_again(directory: Up, files: Files) -> None:
    config = files.folder / "kt.toml"
    text = directory.settings.read_text().replace("keys/", f"{directory.data}/keys/")

    def write(table: str) -> None:
        config.write_text(text.replace("[frontend]\n", f"[frontend]\n{table}\n"))

    tls = f'tls_cert = "{files.certificate}"\ntls_key = "{files.key}"\n'
    write(f"{tls}max_backlog = 9")
    with frontend(directory, files, config=config) as process:
        port = served(process)
        assert limit(port, files.first) == 9
        write(f"{tls}max_backlog = 7")
        assert process.reload()["changed"] == ["max_backlog"]
        assert limit(port, files.first) == 7
        # What cannot be changed while it serves is named, what cannot be read changes nothing.
        write(f"{tls}max_backlog = 8")
        config.write_text(config.read_text().replace("keys/vrf.pem", "keys/other.pem"))
        reloads = process.reload()
        assert (reloads["changed"], reloads["needs_restart"]) == (["max_backlog"], ["vrf_key"])
        write(f'{tls}max_backlog = 8\naddress_rate = 5.0\nmax_connections = 9\nexempt = "192.0.2.0/24"')
        reloads = process.reload()
        assert set(reloads["changed"]) == {"address_rate", "connections"}
        assert reloads["needs_restart"] == ["exempt"]
        write(f"{tls}max_backlog = 0")
        reloads = process.reload()
        assert "max_backlog" in reloads["reason"]
        assert limit(port, files.first) == 8
        # The files of another place are taken from there; to serve without any needs a restart.
        write(f'tls_cert = "{files.second.certificate}"\ntls_key = "{files.second.key}"')
        changed = set(process.reload()["changed"])
        assert changed == {"certificate", "max_backlog", "address_rate", "connections"}
        assert limit(port, files.second) == 200_000
        write("")
        assert process.reload()["needs_restart"] == ["tls_cert"]
        assert limit(port, files.second) == 200_000


def limit(port: int, made: Certified) -> int:
    figures = asked(port, made, "/metrics")[1]
    found = re.search(rb"^kt_backlog_limit_items (\S+)$", figures, re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


def test_nothing_of_kt_up_is_ended(tmp_path: Path) -> None:
    with running_up(tmp_path / "data", *SHORT) as up:
        before = up.state
        settings = up.settings.read_text()
        up.settings.write_text(settings.replace("batch_limit = 100000", "batch_limit = 5000"))

        def reloads() -> dict[str, dict[str, Any]]:
            lines = [json.loads(line) for line in up.spoken.splitlines() if line.startswith("{")]
            return {line["process"]: line for line in lines if line["event"] == "reloaded"}

        up.process.send_signal(signal.SIGHUP)
        until(
            lambda: reloads().keys() == {"up", "node", "signer", "frontend", "monitor"}, "all of them say so"
        )
        assert reloads()["signer"]["changed"] == ["batch_limit"]
        assert not any(line["needs_restart"] for line in reloads().values())
        for pid in before["processes"].values():
            os.kill(pid, signal.SIGHUP)
        until(lambda: up.spoken.count('"reloaded"') >= 9, "again")
        assert up.state == before
        assert all(is_alive(pid) for pid in before["processes"].values())
        assert up.audit()["records"] >= 1


def test_who_watches_is_not_ended(directory: Up, tmp_path: Path) -> None:
    home = tmp_path / "home"
    someone = Stranger(home)
    someone.kt("keys", "generate")
    reach = ("--server", directory.url, "--vkey", directory.vkey)
    watching = Running(tmp_path / "watch.log", "watch", *reach, "nobody@example.org")
    try:
        watching.wait_for_line("nobody@example.org")
        for _ in range(2):
            assert watching.process.poll() is None, watching.spoken
            watching.process.send_signal(signal.SIGHUP)
        assert watching.stop(signal.SIGTERM) != -signal.SIGHUP
    finally:
        watching.stop(signal.SIGKILL)


def client(port: str, made: Certified) -> EventStoreDBClient:
    return EventStoreDBClient(f"esdb://admin:secret@localhost:{port}?TlsCaFile={made.authority}")


def appended(log: EventStoreDBClient, stream: str, size: int = 10) -> None:
    event = NewEvent(type="T", data=b"x" * size, content_type="application/octet-stream")
    log.append_to_stream(stream, current_version=StreamState.ANY, events=[event])


def test_a_node_exchanges_its_certificate_and_its_limits(files: Files, tmp_path: Path) -> None:
    data, config = tmp_path / "node", tmp_path / "kt.toml"
    add(data, "admin", "secret", ["$admins"])
    settings = settings_text(tmp_path)
    config.write_text(settings)
    words: tuple[str | Path, ...]
    words = ("-c", config, "node", "--data", data, "--listen", "127.0.0.1:0", *files.options)
    with ended(Reloading(tmp_path / "node.log", *words)) as process:
        port = json.loads(process.wait_for_line('"serving"'))["address"].rpartition(":")[2]
        with client(port, files.first) as old:
            appended(old, "one")
            following = iter(old.subscribe_to_stream("one"))
            assert next(following).stream_position == 0
            files.install(files.second)
            config.write_text(settings.replace("[node]\n", "[node]\nmax_groups = 1\nmax_metadata = 5000\n"))
            reloads = process.reload()
            assert set(reloads["changed"]) == {"certificate", "max_groups"}
            assert reloads["needs_restart"] == ["max_metadata"]
            # The old connection goes on, and so does what it follows.
            appended(old, "one")
            assert next(following).stream_position == 1
            with client(port, files.second) as new:
                appended(new, "one")
                new.create_subscription_to_stream("group", "one")
                with pytest.raises(Exception, match="Maximum of 1"):
                    new.create_subscription_to_stream("another", "one")
            assert next(following).stream_position == 2
            files.certificate.write_text("nonsense")
            assert "not a certificate" in process.reload()["reason"]
            with client(port, files.second) as new:
                appended(new, "one")
            assert next(following).stream_position == 3


def settings_text(folder: Path) -> str:
    from kt_es.cli.operators.init import NewDirectory, write_directory

    made = write_directory(
        folder / "directory", NewDirectory("people", "localhost/people", "esdb://h:1", "email", 1.0, 60.0)
    )
    return (made.base / "kt.toml").read_text()
