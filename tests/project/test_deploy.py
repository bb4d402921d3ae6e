"""The files of deploy/: what they say of exit codes and commands holds, and their programs accept them.

Where one of these programs is not installed, its test is skipped and says so.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from kt_es.cli.supervisor import FINAL_CODES
from tests.reference.command_line import check_words, variables

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("kt-*.service"))
PROCESSES = [unit for unit in UNITS if unit.stem != "kt-compose"]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
KEPT = DEPLOY / "docker" / "kt-kept"
SHARED_INIT = DEPLOY / "docker" / "kt-shared-init"


def program(name: str) -> str:
    found = shutil.which(name) or shutil.which(f"/usr/sbin/{name}")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def accepted(*words: str | Path, folder: Path = ROOT) -> str:
    """Run a program that checks something; it has to be content. What it says."""
    done = subprocess.run(
        list(map(str, words)), cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def settings(unit: Path) -> dict[str, str]:
    lines = [line for line in unit.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_there_is_a_unit_for_each_process() -> None:
    names = ["kt-cosign", "kt-frontend", "kt-monitor", "kt-node", "kt-signer", "kt-witness"]
    assert [unit.stem for unit in PROCESSES] == names


@pytest.mark.parametrize("unit", PROCESSES, ids=lambda unit: unit.stem)
def test_a_unit_runs_a_command_and_takes_its_exit_codes_as_they_are_meant(unit: Path) -> None:
    said = settings(unit)
    program_, *words = shlex.split(said["ExecStart"])
    assert program_.endswith("/kt")
    check_words(words)
    name = unit.stem.removeprefix("kt-")
    assert name in words
    # What it writes is its own, and what it may write.
    assert f"/var/lib/{said['StateDirectory']}" == words[words.index("--data") + 1]
    assert said["ProtectSystem"] == "strict"
    assert said["User"] != "root"
    assert said["Restart"] == "always"
    assert tuple(map(int, said["RestartPreventExitStatus"].split())) == FINAL_CODES
    assert said["StartLimitIntervalSec"] == "0"
    assert said["ExecReload"].endswith("-HUP $MAINPID")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_accepts_the_unit(unit: Path, tmp_path: Path) -> None:
    analyze = program("systemd-analyze")
    copy = tmp_path / unit.name
    # Programs and users that this machine need not have.
    text = re.sub(r"(?<==)(/opt/kt-es/bin/kt|/usr/bin/docker)(?= )", "/bin/true", unit.read_text())
    copy.write_text(re.sub(r"^(Requires|After)=docker.service.*\n", "", text, flags=re.MULTILINE))
    said = accepted(analyze, "verify", "--man=no", copy)
    assert str(copy) not in said, said
    assert unit.name not in said, said


def test_every_variable_that_is_named_is_an_option() -> None:
    named = {
        name
        for file in DEPLOY.rglob("*")
        if file.is_file()
        for name in re.findall(r"\bKT_[A-Z_]*[A-Z]\b", file.read_text())
    }
    assert named <= variables()


def test_logrotate_accepts_its_file(tmp_path: Path) -> None:
    logrotate = program("logrotate")
    copy = tmp_path / "kt-es"
    copy.write_text((DEPLOY / "logrotate" / "kt-es").read_text().replace("/var/log/kt-es", str(tmp_path)))
    (tmp_path / "signer.log").write_text("{}\n")
    copy.chmod(0o644)
    said = accepted(logrotate, "--force", "--state", tmp_path / "state", copy)
    assert not said
    # The process that has the file open writes on into the same one.
    assert (tmp_path / "signer.log").read_text() == ""
    assert (tmp_path / "signer.log.1").read_text() == "{}\n"


def test_promtool_accepts_rules_and_settings(tmp_path: Path) -> None:
    promtool = program("promtool")
    folder = DEPLOY / "prometheus"
    for name in ("prometheus.yml", "compose.yml"):
        assert "SUCCESS" in accepted(promtool, "check", "config", name, folder=folder)
    assert "SUCCESS" in accepted(promtool, "test", "rules", "kt-es.test.yml", folder=folder)


def test_the_dashboard_is_one() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "kt-es.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 10
    for panel in panels:
        assert panel["title"]
        assert panel["targets"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24


# Compose.


def service(name: str) -> str:
    found = re.search(rf"^  {name}:\n((?:    .*\n|\n|  #.*\n)+)", COMPOSE, re.MULTILINE)
    assert found is not None, name
    return found[1]


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        *((name, "kept") for name in ("signer", "frontend1", "frontend2", "monitor", "cosign")),
        *(
            (f"shared-{name}", "kept-shared")
            for name in ("signer", "standby", "frontend1", "frontend2", "monitor")
        ),
    ],
)
def test_compose_starts_nothing_again_after_a_divergence(name: str, kept: str) -> None:
    block = service(name)
    assert f"<<: [*kt, *{kept}]" in block
    assert "restart:" not in block
    how = COMPOSE.partition(f"x-{kept}: &{kept}\n")[2].partition("\n\n")[0]
    assert 'restart: "no"' in how
    assert 'entrypoint: ["kt-kept"]' in how
    assert "healthcheck: *" in block
    if "frontend" not in name:
        assert '"--metrics", "0.0.0.0:9100"' in block


def test_containers_are_bounded_and_read_only() -> None:
    ours = COMPOSE.partition("x-kt: &kt\n")[2].partition("\nx-")[0]
    for line in ("read_only: true", "cap_drop: [ALL]", "mem_limit: ", "pids_limit: ", "max-size: "):
        assert line in ours
    for other in ("eventstore", "prometheus"):
        assert "mem_limit: " in service(other)
    assert "mem_limit: " in COMPOSE.partition("x-cassandra: &cassandra\n")[2].partition("\n\n")[0]


def test_what_compose_mounts_is_there() -> None:
    mounted = re.findall(r"^ +- \./(\S+?):", COMPOSE, re.MULTILINE)
    assert mounted
    for path in mounted:
        assert (ROOT / path).is_file()


def fake_kt(folder: Path, body: str) -> dict[str, str]:
    """An environment whose ``kt`` is a script."""
    kt = folder / "kt"
    kt.write_text(f"#!/bin/sh\necho run >> {folder}/runs\n{body}\n")
    kt.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def runs(folder: Path) -> int:
    return len((folder / "runs").read_text().splitlines())


@pytest.mark.parametrize("code", [0, *FINAL_CODES])
def test_a_final_code_ends_the_container(code: int, tmp_path: Path) -> None:
    done = subprocess.run([KEPT, "signer"], env=fake_kt(tmp_path, f"exit {code}"), timeout=60, check=False)
    assert done.returncode == code
    assert runs(tmp_path) == 1


@pytest.mark.parametrize("how", ["exit 1", "exit 7", "kill -KILL $$"])
def test_what_may_pass_is_tried_again(how: str, tmp_path: Path) -> None:
    body = f"test $(wc -l < {tmp_path}/runs) = 2 && exit 4\n{how}"
    done = subprocess.run(
        [KEPT, "signer"], env=fake_kt(tmp_path, body), timeout=60, check=False, stderr=subprocess.PIPE
    )
    assert done.returncode == 4
    assert runs(tmp_path) == 2
    assert json.loads(done.stderr.splitlines()[-1])["process"] == "signer"


def test_signals_reach_the_process(tmp_path: Path) -> None:
    body = "trap 'echo hup' HUP\ntrap 'exit 0' TERM\necho ready\nwhile :; do sleep 60 & wait $!; done"
    process = subprocess.Popen(
        [KEPT, "frontend"], env=fake_kt(tmp_path, body), stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for _ in range(2):
            process.send_signal(signal.SIGHUP)
            assert process.stdout.readline() == "hup\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert runs(tmp_path) == 1
        process.stdout.close()
    finally:
        # The sleeping children of the scripts, if one was started before the end came.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def shared_init(folder: Path, body: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**fake_kt(folder, body), "KT_CONFIG": str(folder / "kt.toml")}
    words = [str(SHARED_INIT), "cassandra://db1,db2/kt_shared", "init", "--directory", "shared"]
    return subprocess.run(words, env=environment, timeout=60, check=False)


def test_a_directory_over_a_shared_store_is_made_once(tmp_path: Path) -> None:
    settings = tmp_path / "kt.toml"
    body = f'echo "$@" >> {tmp_path}/words\ntest -f {settings} || echo \'directory = "shared"\' > {settings}'
    for _ in range(2):
        assert shared_init(tmp_path, body).returncode == 0
    words = (tmp_path / "words").read_text().splitlines()
    assert words == ["init --directory shared", "store init"] * 2
    made = tomllib.loads(settings.read_text())
    assert made == {"directory": "shared", "store": {"shared": "cassandra://db1,db2/kt_shared"}}


def test_without_a_directory_no_shared_store_is_made(tmp_path: Path) -> None:
    assert shared_init(tmp_path, "exit 7").returncode == 7
    assert runs(tmp_path) == 1
    assert not (tmp_path / "kt.toml").exists()


def healthy(*words: str) -> int:
    command: Sequence[str] = (sys.executable, str(DEPLOY / "docker" / "healthy.py"), *words)
    return subprocess.run(command, stderr=subprocess.DEVNULL, timeout=60, check=False).returncode


def test_a_container_is_healthy_by_its_page(tmp_path: Path) -> None:
    (tmp_path / "page").write_text("# HELP kt_signer_active words\nkt_signer_active 0.0\n")
    page = (tmp_path / "page").as_uri()
    assert healthy(page) == 0
    assert healthy(page, "kt_signer_active") == 0
    assert healthy(page, "kt_monitor_alarm") == 1
    assert healthy((tmp_path / "none").as_uri()) != 0
