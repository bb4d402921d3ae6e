"""Real Cassandra nodes: what they acknowledged survives SIGKILL, and they end with whoever started them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.reference.cassandra import ContactPoints, connected, need_installed
from tools.cassandra import CassandraError, Cluster, NotInstalledError
from tools.cassandra.jars import JARS_VARIABLE, ROOT, find_java, jars, version

# Maven's last option is -DoutputDirectory=...
MAVEN_MKDIR = 'for last; do :; done; into="${last#*=}"; /bin/mkdir "$into"'
GUARDED = ROOT / "tools" / "cassandra" / "guarded.py"


def made(session: Any, keyspace: str, replicas: int) -> None:
    replication = f"{{'class': 'SimpleStrategy', 'replication_factor': {replicas}}}"
    session.execute(f"CREATE KEYSPACE {keyspace} WITH replication = {replication}")
    session.execute(f"CREATE TABLE {keyspace}.rows (key text PRIMARY KEY, value blob)")


def put(session: Any, keyspace: str, key: str, value: bytes, consistency: str = "ONE") -> None:
    _execute(session, f"INSERT INTO {keyspace}.rows (key, value) VALUES (%s, %s)", (key, value), consistency)


def get(session: Any, keyspace: str, key: str, consistency: str = "ONE") -> bytes:
    query = f"SELECT value FROM {keyspace}.rows WHERE key = %s"
    value: bytes = _execute(session, query, (key,), consistency).one()[0]
    return value


def _execute(session: Any, query: str, values: tuple[Any, ...], consistency: str) -> Any:
    from cassandra import ConsistencyLevel
    from cassandra.query import SimpleStatement

    level = ConsistencyLevel.name_to_value[consistency]
    return session.execute(SimpleStatement(query, consistency_level=level), values)


class TestNodes:
    def test_the_node_of_this_run_stores_rows(self, cassandra: ContactPoints, keyspace: str) -> None:
        with connected(cassandra.addresses, cassandra.port) as session:
            made(session, keyspace, 1)
            put(session, keyspace, "alice", b"key")
            assert get(session, keyspace, "alice") == b"key"

    def test_a_row_survives_sigkill(self, cassandra_installed: None, tmp_path: Path) -> None:
        with Cluster(tmp_path) as cluster:
            (node,) = cluster.nodes
            with connected(cluster.addresses, cluster.port) as session:
                made(session, "kt", 1)
                put(session, "kt", "alice", b"key")
            before = node.pid
            node.kill()
            assert not node.answers()
            cluster.start()
            assert node.pid != before
            with connected(cluster.addresses, cluster.port) as session:
                assert get(session, "kt", "alice") == b"key"
        assert not node.runs
        # A later cluster in the directory has the data and the addresses.
        with (
            Cluster(tmp_path) as later,
            connected(cluster.addresses, cluster.port) as session,
        ):
            assert later.addresses == cluster.addresses
            assert get(session, "kt", "alice") == b"key"

    def test_two_of_three_are_a_quorum(self, three_nodes: Cluster) -> None:
        first, second, third = three_nodes.nodes
        with connected(three_nodes.addresses, three_nodes.port) as session:
            made(session, "quorum", 3)
        third.kill()
        with connected((first.address, second.address), three_nodes.port) as session:
            put(session, "quorum", "alice", b"key", "QUORUM")
        three_nodes.start()
        first.freeze()
        with connected((second.address, third.address), three_nodes.port) as session:
            # The third node may have missed the row, but a quorum has it.
            assert get(session, "quorum", "alice", "QUORUM") == b"key"
        first.thaw()
        three_nodes.wait()
        with connected((first.address,), three_nodes.port) as session:
            assert get(session, "quorum", "alice", "ALL") == b"key"

    def test_who_is_frozen_is_not_waited_for(self, three_nodes: Cluster) -> None:
        first, second, third = three_nodes.nodes
        first.freeze()
        second.kill()
        second.start()
        three_nodes.wait()
        assert second.answers()
        assert third.answers()
        first.thaw()
        three_nodes.wait()
        assert first.answers()

    def test_a_node_that_ends_is_an_error_with_the_end_of_its_log(
        self, cassandra_installed: None, tmp_path: Path
    ) -> None:
        cluster = Cluster(tmp_path, heap=1)
        with pytest.raises(CassandraError, match=r"ended with exit code 1; .*node\.log:\n(.*\n)*.*heap"):
            cluster.start()
        assert not any(node.runs for node in cluster.nodes)

    def test_another_number_of_nodes_is_refused(self, cassandra_installed: None, tmp_path: Path) -> None:
        Cluster(tmp_path, nodes=1)
        with pytest.raises(CassandraError, match="has a cluster of 1 nodes, not of 3"):
            Cluster(tmp_path, nodes=3)


class TestEnds:
    def test_the_command_prints_its_addresses_and_ends_on_sigterm(
        self, cassandra_installed: None, tmp_path: Path
    ) -> None:
        command = [sys.executable, "-m", "tools.cassandra", "--nodes", "1", "--data", str(tmp_path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            address, port = process.stdout.readline().strip().split(":")
            with connected((address,), int(port)) as session:
                made(session, "kt", 1)
            process.terminate()
            assert process.wait() == 0

    def test_the_command_ends_with_the_given_process(self, cassandra_installed: None, tmp_path: Path) -> None:
        with subprocess.Popen(["sleep", "3600"]) as told:
            command = [sys.executable, "-m", "tools.cassandra", "--data", str(tmp_path)]
            command += ["--until-end-of", str(told.pid)]
            with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                assert process.stdout.readline().startswith("127.")
                told.kill()
                assert process.wait() == 0

    def test_a_command_gets_the_addresses_and_gives_its_exit_code(
        self, cassandra_installed: None, tmp_path: Path
    ) -> None:
        program = "import socket, sys; socket.create_connection(sys.argv[1].split(':')); sys.exit(7)"
        command = [sys.executable, "-m", "tools.cassandra", "--data", str(tmp_path)]
        command += [sys.executable, "-c", program, "ADDRESSES"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (7, "")
        assert done.stdout.startswith("127.")

    def test_a_guarded_process_ends_with_its_parent(self) -> None:
        # The parent prints the process ID of its child and is killed.
        program = """
import subprocess, sys
child = subprocess.Popen([sys.executable, sys.argv[1], sys.argv[2], "-c",
    "import sys, time; print('runs', flush=True); time.sleep(3600)"], stdin=subprocess.PIPE)
print(child.pid, flush=True)
child.wait()
"""
        with subprocess.Popen(
            [sys.executable, "-c", program, str(GUARDED), sys.executable],
            stdout=subprocess.PIPE,
            text=True,
        ) as parent:
            assert parent.stdout is not None
            said = {parent.stdout.readline().strip() for _ in range(2)}
            (child,) = said - {"runs"}
            descriptor = os.pidfd_open(int(child))
            parent.send_signal(signal.SIGKILL)
            # Readable when the child has ended.
            assert select.select([descriptor], [], []) == ([descriptor], [], [])
            os.close(descriptor)

    def test_a_guarded_process_that_ends_leaves_nothing(self) -> None:
        with subprocess.Popen(
            [sys.executable, str(GUARDED), sys.executable, "-c", "import sys; sys.exit(7)"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            # The guard holds the output as well.
            assert process.stdout.read() == b""
            assert process.wait() == 7


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


class TestInstalled:
    @pytest.fixture(autouse=True)
    def tools(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A directory for programs, the only one besides the system's; the jars go to another one."""
        monkeypatch.setenv("PATH", f"{tmp_path}/bin")
        monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
        monkeypatch.setenv(JARS_VARIABLE, str(tmp_path / "cache" / "jars"))
        monkeypatch.setattr("tools.cassandra.jars.INSTALLED", tmp_path / "jvm")
        return tmp_path

    def java(self, path: Path, text: str) -> None:
        program(path, f"echo 'openjdk version \"{text}\"' >&2")

    def test_java_is_searched_at_three_places(self, tools: Path) -> None:
        with pytest.raises(NotInstalledError, match=r"no Java was found: install it .*openjdk-17"):
            find_java()
        self.java(tools / "bin" / "java", "21.0.2")
        with pytest.raises(NotInstalledError, match="bin/java is Java 21: install"):
            find_java()
        self.java(tools / "jvm" / "java-17" / "bin" / "java", "17.0.15")
        assert find_java().path == tools / "jvm" / "java-17" / "bin" / "java"
        self.java(tools / "home" / "bin" / "java", "11.0.1")
        assert (find_java().path, find_java().version) == (tools / "home" / "bin" / "java", 11)

    def test_without_maven_the_error_names_what_to_install(self) -> None:
        with pytest.raises(NotInstalledError, match=f"no mvn: install Maven .* or set {JARS_VARIABLE}"):
            jars()

    def test_a_failure_leaves_no_jars(self, tools: Path) -> None:
        program(tools / "bin" / "mvn", f"{MAVEN_MKDIR}; echo no network; exit 1")
        with pytest.raises(CassandraError, match=r"exit code 1\); it said:\nno network"):
            jars()
        assert [path.name for path in (tools / "cache").iterdir()] == [".jars.lock"]

    @pytest.mark.parametrize(
        ("said", "skips"),
        [
            ("Could not transfer artifact a:b from/to central: Unknown host", True),
            ("Cannot access central in offline mode and the artifact a:b has not been downloaded", True),
            ("Could not find artifact org.apache.cassandra:cassandra-all:jar:5.0.66 in central", False),
        ],
    )
    def test_only_what_is_not_installed_skips_a_test(self, tools: Path, said: str, skips: bool) -> None:
        with pytest.raises(pytest.skip.Exception, match="no Java was found"):
            need_installed()
        self.java(tools / "bin" / "java", "17.0.15")
        program(tools / "bin" / "mvn", f"echo '{said}'; exit 1")
        with pytest.raises(pytest.skip.Exception if skips else CassandraError, match=said) as raised:
            need_installed()
        assert isinstance(raised.value, CassandraError) is not skips

    def test_jars_are_fetched_once(self, tools: Path) -> None:
        calls = tools / "calls"
        program(tools / "bin" / "mvn", f'echo "$@" >> {calls}; {MAVEN_MKDIR}; echo > "$into/a.jar"')
        together = threading.Barrier(4)

        def fetch(_: int) -> list[str]:
            together.wait()
            return [path.name for path in jars().iterdir()]

        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(fetch, range(4))) == [["a.jar"]] * 4
        (call,) = calls.read_text().splitlines()
        assert "dependency:copy-dependencies" in call.split()

    def test_the_version_is_that_of_the_pom(self) -> None:
        assert version() == "5.0.6"
