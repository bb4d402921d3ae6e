"""Commands that run once outlast a log that is away, as in an election: real processes and a real node."""

from __future__ import annotations

from pathlib import Path

import pytest

from kt_es.cli.addresses import free_address
from kt_es.node.server import NodeConfig
from tests.contracts.certificates import certify
from tests.contracts.nodes import ServedNode
from tests.e2e.processes import Running, Stranger

pytestmark = pytest.mark.e2e

WAITS = "waiting up to 30 s for the event log"


@pytest.fixture
def port() -> int:
    """A port where nobody listens until the test does."""
    return free_address().port


def waited(spoken: Path, node: NodeConfig, *arguments: str | Path, code: int) -> str:
    """What a command said that was started before its log was; it has to end with ``code``."""
    running = Running(spoken, *arguments)
    try:
        running.wait_for_line(WAITS)
        with ServedNode(node):
            assert running.process.wait(45) == code, running.spoken
    finally:
        running.stop()
    assert running.spoken.count(WAITS) == 1
    assert "Traceback" not in running.spoken
    return running.spoken


def test_every_command_waits_for_the_log(tmp_path: Path, port: int) -> None:
    uri = f"esdb://127.0.0.1:{port}?Tls=false"
    node = NodeConfig(tmp_path / "node", port=port, anonymous=True)
    data = tmp_path / "data"
    said = waited(tmp_path / "init.log", node, "init", "--data", data, "--log", uri, code=0)
    assert "began the queue" in said
    config = ("-c", data / "kt.toml")
    someone = Stranger(tmp_path / "home")
    # Nothing has been published yet, which only the log can tell.
    for command in ("audit", "status"):
        with ServedNode(node):
            now = someone.kt(*config, command, code=expected(command))
        assert WAITS not in now.err
        said = waited(tmp_path / f"{command}.log", node, *config, command, code=expected(command))
        assert now.err.splitlines()[-1:] == said.splitlines()[-1:] or command == "status"


def expected(command: str) -> int:
    return {"audit": 1, "status": 0}[command]


@pytest.mark.parametrize("command", ["init", "audit", "status"])
def test_after_its_patience_a_command_ends_with_7(tmp_path: Path, port: int, command: str) -> None:
    someone = Stranger(tmp_path / "home", KT_INIT_PATIENCE="0.8")
    uri = f"esdb://127.0.0.1:{port}?Tls=false"
    ran = someone.kt("init", "--data", someone.home, "--log", uri, code=7)
    if command != "init":
        ran = someone.kt(command, "--patience", "0.8", code=7)
    said = ran.err.splitlines()
    assert [line for line in said if line.startswith("waiting up to 0.8 s for the event log: ")]
    assert "the event log is unavailable" in said[-1]


def test_a_certificate_that_is_refused_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "other").mkdir()
    made, other = certify(tmp_path / "own"), certify(tmp_path / "other")
    config = NodeConfig(
        tmp_path / "node", port=0, anonymous=True, tls_cert=made.certificate, tls_key=made.key
    )
    someone = Stranger(tmp_path / "home")
    with ServedNode(config) as node:
        uri = f"esdb://u:p@{node.address}?TlsCaFile={other.authority}"
        ran = someone.kt("-q", "init", "--data", someone.home, "--log", uri, code=7)
    assert "CERTIFICATE_VERIFY_FAILED" in ran.complaint
