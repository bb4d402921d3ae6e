"""Real clients and stub members as processes: who is connected to while leaders die, hang and come back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from kt_es.cli.operators.init import NewDirectory, write_directory
from kt_es.errors import UnavailableError
from kt_es.eventstore import esdb, esdb_client
from kt_es.eventstore.connecting import Connector, connect
from kt_es.eventstore.esdb import EsdbLog
from kt_es.eventstore.streams import Subscription
from tests.contracts.certificates import certify
from tests.e2e.processes import Running, until
from tests.eventstore.test_discovery import GOSSIP, LEADERS, Situation

PATIENCE = 30.0


class Members:
    """Three stub members; in situations they are called 2201, 2202 and 2203."""

    def __init__(self, folder: Path, tls: tuple[str, ...] = ()) -> None:
        self._folder = folder
        self._tls = tls
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self.ports: dict[str, int] = {}
        for name in ("2201", "2202", "2203"):
            self._file(name).write_text('{"members": []}')
            command = [sys.executable, "-m", "tests.eventstore.stub_member", str(self._file(name)), *tls]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            self._processes[name] = process
        for name, process in self._processes.items():
            assert process.stdout is not None
            self.ports[name] = int(process.stdout.readline())

    @property
    def uri(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self.ports.values())

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def answer(self, situation: Situation, stopping: str = "") -> None:
        """From now on they answer so; who is missing in the situation takes questions and stays silent.

        ``stopping`` refuses new calls and keeps those that are open, as a server does in an orderly stop.
        """
        for name in self.ports:
            answers: dict[str, object] = {"silent": True}
            if name in situation:
                rows = [[self.ports[str(port)], state, alive] for port, state, alive in situation[name]]
                answers = {"members": rows}
            answers["stopping"] = name == stopping
            fresh = self._file(name).with_suffix(".new")
            fresh.write_text(json.dumps(answers))
            fresh.replace(self._file(name))

    def subscriptions(self, name: str) -> int:
        """How many are open at a member."""
        try:
            return int(self._file(name).with_suffix(".open").read_text())
        except FileNotFoundError:
            return 0

    def signal(self, name: str, number: int) -> None:
        os.kill(self._processes[name].pid, number)

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait(PATIENCE)
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture
def members(tmp_path: Path) -> Iterator[Members]:
    made = Members(tmp_path)
    yield made
    made.close()


@pytest.fixture
def connected(members: Members) -> Iterator[Callable[[], EsdbLog]]:
    with ExitStack() as stack:

        def make() -> EsdbLog:
            log = connect(f"esdb://{members.uri}?Tls=false")
            stack.callback(log.close)
            return log

        yield make


def target(log: EsdbLog) -> str:
    return log._client.connection_target


def leader_in(name: str) -> str | None:
    (leader,) = [leader for start, leader in LEADERS.items() if name.startswith(start)]
    return leader


@pytest.mark.parametrize("name", [name for name in GOSSIP if leader_in(name)])
def test_the_leader_is_connected_to(members: Members, connected: Callable[[], EsdbLog], name: str) -> None:
    members.answer(GOSSIP[name])
    log = connected()
    assert target(log) == f"127.0.0.1:{members.ports[str(leader_in(name))]}"
    assert log.last_revision("s") == -1


@pytest.mark.parametrize("name", [name for name in GOSSIP if not leader_in(name)])
def test_without_a_leader_nobody_is_connected_to(
    members: Members, connected: Callable[[], EsdbLog], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(esdb_client, "DISCOVERY_DEADLINE", 0.1)
    members.answer(GOSSIP[name])
    with pytest.raises(UnavailableError, match="says that it leads"):
        connected()


def test_a_leader_is_waited_for(members: Members, connected: Callable[[], EsdbLog]) -> None:
    members.answer(GOSSIP["ten seconds later: no quorum, and the only leader in the list is dead"])
    later = threading.Timer(0.5, members.answer, [GOSSIP["healthy"]])
    later.start()
    log = connected()
    later.join()
    assert target(log) == f"127.0.0.1:{members.ports['2203']}"


def test_a_frozen_leader_is_left_for_the_new_one(members: Members, connected: Callable[[], EsdbLog]) -> None:
    members.answer(GOSSIP["healthy"])
    assert target(connected()) == f"127.0.0.1:{members.ports['2203']}"
    members.answer(GOSSIP["leader 2203 killed, one second later"])
    members.signal("2203", signal.SIGSTOP)
    fresh = connected()
    assert target(fresh) == f"127.0.0.1:{members.ports['2202']}"
    assert fresh.last_revision("s") == -1


def test_a_client_whose_leader_dies_finds_the_next_by_itself(
    members: Members, connected: Callable[[], EsdbLog]
) -> None:
    members.answer(GOSSIP["healthy"])
    log = connected()
    assert log.last_revision("s") == -1
    members.answer(GOSSIP["leader 2203 killed, one second later"])
    members.signal("2203", signal.SIGKILL)
    assert log.last_revision("s") == -1
    assert target(log) == f"127.0.0.1:{members.ports['2202']}"


def test_members_vanish_while_a_client_reconnects(members: Members, connected: Callable[[], EsdbLog]) -> None:
    members.answer(GOSSIP["healthy"])
    log = connected()
    assert log.last_revision("s") == -1
    # The leader goes, the members disagree, and the one that leads next is the last one left.
    members.answer(
        GOSSIP["leader 2203 frozen, the others still deciding: one takes it for alive, one for dead"]
    )
    members.signal("2203", signal.SIGKILL)

    def go_on() -> None:
        rows = [(2203, "Leader", False), (2202, "Follower", False), (2201, "Leader", True)]
        members.answer({"2201": rows})
        members.signal("2202", signal.SIGKILL)

    later = threading.Timer(0.5, go_on)
    later.start()
    assert log.last_revision("s") == -1
    later.join()
    assert target(log) == f"127.0.0.1:{members.ports['2201']}"


def test_a_refused_client_takes_the_idle_subscriptions_of_its_process_along(members: Members) -> None:
    members.answer(GOSSIP["healthy"])
    connector = Connector(f"esdb://{members.uri}?Tls=false")
    idle, busy, elsewhere = connector(), connector(), connect(f"esdb://{members.uri}?Tls=false")
    try:
        ended = {name: threading.Event() for name in ("idle", "elsewhere")}
        for name, log in (("idle", idle), ("elsewhere", elsewhere)):
            subscription = log.subscribe("s")

            def follow(subscription: Subscription = subscription, name: str = name) -> None:
                with suppress(UnavailableError):
                    for _ in subscription:
                        pass
                ended[name].set()

            threading.Thread(target=follow, daemon=True).start()
        assert busy.last_revision("s") == -1
        assert not ended["idle"].is_set()
        # The leader is stopped in an orderly way; another one has been elected already.
        members.answer(GOSSIP["leader 2203 killed, one second later"], stopping="2203")
        assert busy.last_revision("s") == -1
        assert target(busy) == f"127.0.0.1:{members.ports['2202']}"
        assert ended["idle"].wait(PATIENCE)
        assert not ended["elsewhere"].is_set()
    finally:
        for log in (idle, busy, elsewhere):
            log.close()


@pytest.mark.parametrize(("process", "subscriptions"), [("frontend", 2), ("monitor", 1)])
def test_a_process_leaves_a_leader_that_is_stopped_in_an_orderly_way(
    members: Members, tmp_path: Path, process: str, subscriptions: int
) -> None:
    """The server waits for the subscriptions that are open; nothing would ever come by them again."""
    members.answer(GOSSIP["healthy"])
    uri = f"esdb://{members.uri}?Tls=false"
    base = tmp_path / "directory"
    write_directory(base, NewDirectory("people", "localhost/people", uri, "email", 1.0, 60.0))
    option = {"frontend": "--listen", "monitor": "--metrics"}[process]
    running = Running(tmp_path / f"{process}.log", "-c", base / "kt.toml", process, option, "127.0.0.1:0")
    try:
        until(lambda: members.subscriptions("2203") == subscriptions, "all of them are open")
        members.answer(GOSSIP["leader 2203 killed, one second later"], stopping="2203")
        until(lambda: members.subscriptions("2203") == 0, "the leader may go", 10)
        until(lambda: members.subscriptions("2202") == subscriptions, "they go on at the next one")
    finally:
        assert running.stop() == 0, running.spoken
    assert "Traceback" not in running.spoken


def test_joining_a_member_that_has_resigned_is_given_up_soon(
    members: Members, connected: Callable[[], EsdbLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(esdb, "OPENING_DEADLINE", 600.0)
    monkeypatch.setattr(esdb, "OPENING_LOOK", 0.1)
    members.answer(GOSSIP["healthy"])
    log = connected()
    assert log.last_revision("s") == -1
    resigned: Situation = {
        name: [(2203, "Follower", True), (2202, "Leader", True), (2201, "Follower", True)]
        for name in members.ports
    }
    members.answer(resigned)
    with pytest.raises(UnavailableError):
        log.join_group("s", "g")
    assert target(connected()) == f"127.0.0.1:{members.ports['2202']}"


def test_with_tls(tmp_path: Path) -> None:
    made = certify(tmp_path)
    members = Members(tmp_path, (str(made.certificate), str(made.key)))
    try:
        name = "the same, later: 2201 had to cut off what it alone had written and ended itself; "
        members.answer(next(situation for key, situation in GOSSIP.items() if key.startswith(name)))
        log = connect(f"esdb://user:secret@{members.uri}?TlsCaFile={made.authority}")
        try:
            assert target(log) == f"127.0.0.1:{members.ports['2203']}"
            assert log.last_revision("s") == -1
        finally:
            log.close()
        named = connect(
            f"esdb+discover://user:secret@localhost:{members.ports['2202']}?TlsCaFile={made.authority}"
        )
        try:
            assert target(named) == f"127.0.0.1:{members.ports['2203']}"
            assert named.last_revision("s") == -1
        finally:
            named.close()
    finally:
        members.close()
