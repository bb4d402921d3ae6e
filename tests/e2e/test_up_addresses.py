"""``kt up`` and its addresses: nobody else's log is written, proxies are not asked, options must agree."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kt_es.node.server import NodeConfig
from tests.contracts.nodes import ServedNode
from tests.e2e.processes import ANYWHERE, SHORT, Running, Stranger, log_at, running_up

pytestmark = pytest.mark.e2e

# A proxy that refuses every connection.
PROXIES = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "grpc_proxy"), "http://127.0.0.1:9")


@pytest.fixture
def other(tmp_path: Path) -> Iterator[str]:
    """The address of an event log that belongs to somebody else."""
    with ServedNode(NodeConfig(tmp_path / "other", port=0, anonymous=True)) as node:
        yield node.address


def test_the_log_of_somebody_else_is_not_written(tmp_path: Path, other: str) -> None:
    someone, data = Stranger(tmp_path / "home"), tmp_path / "data"
    words = ("up", "--data", data, "--listen", "127.0.0.1:0", "--node-listen", other)
    ran = someone.kt(*words, code=2)
    assert ran.complaint == f"cannot listen on {other}: Address already in use; choose another address"
    assert {path.name for path in data.iterdir()} == {"up.lock"}
    with log_at(f"esdb://{other}?Tls=false") as log:
        assert list(log.stream_names("kt_")) == []
    # Nothing is spoiled: with a port of its own the directory is made.
    with running_up(data) as up:
        up.audit()


@pytest.mark.parametrize("option", ["--listen", "--node-listen"])
def test_a_port_that_is_taken_is_reported_before_anything_is_made(tmp_path: Path, option: str) -> None:
    someone, data = Stranger(tmp_path / "home"), tmp_path / "data"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        ran = someone.kt("up", "--data", data, *ANYWHERE, option, where, code=2)
    assert ran.complaint == f"cannot listen on {where}: Address already in use; choose another address"
    assert not (data / "kt.toml").exists()


def test_two_processes_cannot_have_one_address(tmp_path: Path) -> None:
    same = ("--listen", "127.0.0.1:7", "--node-listen", "127.0.0.1:7")
    ran = Stranger(tmp_path / "home").kt("up", "--data", tmp_path / "data", *same, code=2)
    assert "--listen and --node-listen are both 127.0.0.1:7" in ran.complaint


def test_it_works_behind_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    someone = Stranger(tmp_path / "home", **PROXIES)
    monkeypatch.setattr("tests.e2e.processes.ENVIRONMENT", PROXIES)
    with running_up(tmp_path / "data") as up:
        someone.environment.update(KT_SERVER=up.url, KT_VKEY=up.vkey)
        (tmp_path / "id.raw").write_bytes(b"some key")
        someone.kt("keys", "generate")
        someone.kt("put", "alice@example.org", "--key", tmp_path / "id.raw", "--type", "raw")
        assert "some key" not in someone.kt("get", "alice@example.org").err
        someone.kt("--json", "-c", up.settings, "status")
        someone.kt("-c", up.settings, "audit")


def test_a_proxy_that_does_not_answer_is_named(tmp_path: Path) -> None:
    someone = Stranger(tmp_path / "home", **PROXIES)
    words = ("get", "alice@example.org", "--server", "http://kt.example.org", "--timeout", "1")
    assert (
        "(asked through the proxy that the environment names)" in someone.kt("-q", *words, code=7).complaint
    )
    someone.environment.update(http_proxy="socks://127.0.0.1:9")
    assert "the proxy that the environment names cannot be used" in someone.kt(*words, code=2).complaint


def test_options_that_contradict_the_directory_are_refused(tmp_path: Path) -> None:
    someone, data = Stranger(tmp_path / "home"), tmp_path / "data"
    with running_up(data) as up:
        key = up.vkey
    for option, value, said in (
        ("--origin", "kt.example.org/people", "exists and says origin = 'localhost/people'"),
        ("--label-policy", "text", "its signed config says label_policy = email"),
        ("--min-interval", "3", "its signed config says min_interval = 0.2 s"),
        ("--max-interval", "77", "its signed config says max_interval = 5 s"),
    ):
        ran = someone.kt("-q", "up", "--data", data, *ANYWHERE, option, value, code=2)
        assert said in ran.complaint
    ran = someone.kt("-c", tmp_path / "other.toml", "up", "--data", data, *ANYWHERE, code=2)
    assert f"kt up reads {data / 'kt.toml'}" in ran.err
    # What agrees may be said again.
    with running_up(data, *SHORT, "--origin", "localhost/people", "--label-policy", "email") as up:
        assert up.vkey == key


def test_intervals_that_contradict_each_other_make_nothing(tmp_path: Path) -> None:
    someone, data = Stranger(tmp_path / "home"), tmp_path / "data"
    for pair in (("61", "60"), ("1", "2592001")):
        words = ("--min-interval", pair[0], "--max-interval", pair[1])
        ran = someone.kt("up", "--data", data, *ANYWHERE, *words, code=2)
        assert "the first may not be more than the second" in ran.complaint
    for word, problem in (("nan", "is not a number"), ("inf", "is more than 1000000000")):
        assert problem in someone.kt("up", "--min-interval", word, code=2).err
    assert not (data / "keys").exists()


def test_a_directory_over_another_log_is_not_begun_again(tmp_path: Path, other: str) -> None:
    someone, data = Stranger(tmp_path / "home"), tmp_path / "data"
    someone.kt("init", "--data", data, "--log", f"esdb://{other}?Tls=false")
    ran = someone.kt("up", "--data", data, *ANYWHERE, code=2)
    assert f"says log = 'esdb://{other}?Tls=false', which is not its own node" in ran.complaint
    assert not (data / "node").exists()


def test_init_refuses_what_contradicts_the_directory(tmp_path: Path, other: str) -> None:
    someone, data = Stranger(tmp_path / "home"), tmp_path / "data"
    log = ("--log", f"esdb://{other}?Tls=false")
    someone.kt("init", "--data", data, *log, "--max-interval", "30")
    ran = someone.kt("-q", "init", "--data", data, *log, "--max-interval", "31", code=2)
    assert "its signed config says max_interval = 30 s" in ran.complaint
    someone.kt("init", "--data", data, *log, "--max-interval", "30")


def test_it_prints_three_lines(tmp_path: Path) -> None:
    up = Running(tmp_path / "up.log", "up", "--data", tmp_path / "data", *ANYWHERE, *SHORT)
    try:
        up.wait_for_line("verify with", 90)
        # A machine that is busy may also hear what is waited for.
        made, served, verify = [
            line for line in up.spoken.splitlines() if not line.startswith("waiting for ")
        ]
        assert up.stop() == 0
    finally:
        up.stop()
    assert made == f"✓ made {tmp_path / 'data'} for localhost/people"
    assert served.startswith("✓ localhost/people is served at http://127.0.0.1:")
    assert verify.startswith("  verify with  localhost/people/heads+")
    assert up.spoken.splitlines()[-1] == verify
