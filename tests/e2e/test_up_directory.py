"""``kt up``: what it starts, what it says, how it ends, and what it refuses."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import httpx
import pytest

from kt_es.config.settings import load_settings
from kt_es.process.files import replace_file
from tests.e2e.processes import ANYWHERE, SHORT, Stranger, Up, is_alive, running_up, until

pytestmark = pytest.mark.e2e


def test_four_processes_run_and_are_named_in_a_file(directory: Up) -> None:
    state = directory.state
    assert set(state["processes"]) == {"node", "signer", "frontend", "monitor"}
    assert len({*state["processes"].values(), state["pid"]}) == 5
    assert all(is_alive(pid) for pid in state["processes"].values())
    assert state["key"] in directory.settings.read_text()
    assert httpx.get(f"{directory.url}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{directory.url}/readyz").json() == {"status": "ready"}


def test_an_idle_directory_shows_that_it_lives(directory: Up) -> None:
    def epoch() -> int:
        return int(httpx.get(f"{directory.url}/v1/heads/latest").json()["epoch"])

    first = epoch()
    until(lambda: epoch() > first, "a heartbeat")


def test_keys_and_data_are_for_their_owner_alone(directory: Up) -> None:
    parts = [directory.data / name for name in ("node", "signer", "frontend", "monitor")]
    for path in (*(directory.data / "keys").rglob("*.pem"), *parts):
        assert path.stat().st_mode & 0o077 == 0, path


def test_the_same_directory_can_be_started_again(tmp_path: Path) -> None:
    with running_up(tmp_path / "data") as up:
        vkey = up.vkey
        key = (tmp_path / "data/keys/signer/signer.pem").read_bytes()
    with running_up(tmp_path / "data") as up:
        assert up.vkey == vkey
        assert (tmp_path / "data/keys/signer/signer.pem").read_bytes() == key
        up.audit()


def test_the_settings_lead_to_the_log_that_runs(tmp_path: Path) -> None:
    with running_up(tmp_path / "data") as up:
        assert load_settings(up.settings).log == up.log_uri
    with running_up(tmp_path / "data") as up:
        someone = up.stranger(tmp_path / "home")
        report = someone.kt("--json", "-c", up.settings, "audit").document
        assert report["compared_with_queue"] == report["records"] > 0


def test_a_stopped_directory_is_examined_with_its_log(tmp_path: Path) -> None:
    with running_up(tmp_path / "data") as up:
        someone = up.stranger(tmp_path / "home")
        vkey, node = up.vkey, up.data / "node"
        busy = someone.kt("fsck", up.data / "signer", "--vkey", vkey, "--node", node, code=1)
        assert "in use" in busy.complaint
    for part in ("signer", "frontend", "monitor"):
        ran = someone.kt("--json", "fsck", up.data / part, "--vkey", vkey, "--node", node)
        examined = ran.document["examined"]
        assert examined["heads in the stream"] == examined["heads"] == ran.document["epoch"] > 0
        assert examined["records in the stream"] > 0
    ran = someone.kt("fsck", up.data / "signer", "--vkey", vkey, "--node", up.data / "signer", code=2)
    assert "is no data directory of a node" in ran.complaint


def test_a_second_kt_up_on_the_same_data_is_refused(directory: Up, stranger: Stranger) -> None:
    before = directory.state
    ran = stranger.kt("up", "--data", directory.data, *ANYWHERE, *SHORT, code=1)
    assert f"{directory.data} is in use by another process" in ran.complaint
    assert directory.state == before
    assert httpx.get(f"{directory.url}/readyz").status_code == 200


@pytest.mark.parametrize("part", ["node", "signer", "frontend", "monitor"])
def test_a_second_process_on_the_same_data_is_refused(directory: Up, stranger: Stranger, part: str) -> None:
    common = ("-q", "-c", directory.settings, part)
    where: tuple[str | Path, ...] = ("--log", directory.log_uri)
    if part == "node":
        where = ("--data", directory.data / "node", "--listen", "127.0.0.1:0")
    elif part == "frontend":
        where = (*where, "--listen", "127.0.0.1:0")
    ran = stranger.kt(*common, *where, code=1)
    assert f"{directory.data / part} is in use by another" in ran.complaint


def test_a_port_in_use_is_named(directory: Up, stranger: Stranger, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        ran = stranger.kt("node", "--data", tmp_path / "node", "--listen", where, code=2)
        assert f"cannot listen on {where}" in ran.complaint
        other = tmp_path / "other"
        (other / "keys").mkdir(parents=True)
        (other / "kt.toml").write_text(directory.settings.read_text())
        replace_file(other / "keys/vrf.pem", (directory.data / "keys/vrf.pem").read_bytes())
        ran = stranger.kt(
            *("-c", other / "kt.toml", "frontend", "--log", directory.log_uri, "--listen", where), code=2
        )
        assert f"cannot listen on {where}" in ran.complaint


def test_who_runs_it_sees_how_far_it_is(directory: Up, stranger: Stranger) -> None:
    status = ("-c", directory.settings, "status", "--log", directory.log_uri)
    document = stranger.kt("--json", *status).document
    assert document["origin"] == "localhost/people"
    assert document["head"]["epoch"] >= 1
    assert document["head_age"] < 60
    assert "epoch" in stranger.kt(*status).out


def test_logs_are_json_lines_and_name_no_user(directory: Up, stranger: Stranger, tmp_path: Path) -> None:
    (tmp_path / "id.raw").write_bytes(b"some key")
    stranger.kt("keys", "generate")
    stranger.kt("put", "quiet.person@example.org", "--key", tmp_path / "id.raw", "--type", "raw")
    stranger.kt("get", "quiet.person@example.org")
    assert "quiet.person" not in directory.spoken
    lines = [line for line in directory.spoken.splitlines() if line.startswith("{")]
    assert {json.loads(line).get("process") for line in lines} >= {"node", "signer", "frontend", "monitor"}
