"""A new user's path through the README and an operator's path through OPERATIONS, with their own commands."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e.processes import KT, Stranger, until
from tests.e2e.sessions import as_shown, blocks, commands, console, replaced, run_in_shell

pytestmark = pytest.mark.e2e

OPERATIONS = "docs/OPERATIONS.md"
ALICE = "alice@example.org"
# Processes that go on until they are stopped, with what each says when it is ready.
GOING_ON = {
    "kt node --data": "listening on",
    "kt signer --log": "active",
    "kt frontend --log": "serving",
    "kt monitor --log": "",
}

SSH_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILOC4CE3Vhb27VANntBp4tZ7MZ5xYgm3rWQfOPs9dMcM alice@example.org"
README_KEY = re.compile(r"kt\.example\.org/people/heads\+\S+")


def test_a_new_user_sees_what_the_readme_shows(tmp_path: Path) -> None:
    first, *rest = [console(block) for block in blocks("README.md", "## A first lookup")]
    (start,) = first
    user = Stranger(tmp_path / "home")
    for variable in ("XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        del user.environment[variable]
    (user.home / "id_ed25519.pub").write_text(SSH_KEY + "\n")
    anywhere = {"KT_UP_LISTEN": "127.0.0.1:0", "KT_UP_NODE_LISTEN": "127.0.0.1:0"}
    with going_on(user, start.command, "verify with", **anywhere) as spoken:
        said = tuple(spoken.read_text().splitlines())
        assert as_shown(start.shown, said), said
        (server,) = re.findall(r"served at (\S+)", spoken.read_text())
        (vkey,) = README_KEY.findall(spoken.read_text())
        (log,) = re.findall(r'"(esdb://[^"]+)"', (user.home / "kt-data/up.json").read_text())
        user.environment["KT_SERVER"] = server
        steps = [step for block in rest for step in block]
        values = {"esdb://127.0.0.1:2113?Tls=false": log}
        typed = [replaced(README_KEY.sub(vkey, step.command), values) for step in steps]
        for step, printed in zip(steps, run_in_shell(user, typed), strict=True):
            assert as_shown(step.shown, printed.lines), (step, printed)
            assert printed.code == (3 if "nobody@" in step.command else 0), (step, printed)
    assert len(spoken.read_text().splitlines()) == len(start.shown), spoken.read_text()


def test_an_operator_runs_the_commands_of_the_operations(tmp_path: Path) -> None:
    """A node with TLS and users, a directory over it, its upkeep, and the way back after a lost disk."""
    operator = Stranger(tmp_path / "home", KT_NODE_LISTEN="127.0.0.1:0", KT_FRONTEND_LISTEN="127.0.0.1:0")
    make_certificates(operator)
    (block,) = blocks(OPERATIONS, "### The embedded node with users")
    with ExitStack() as running:
        values = bring_up(operator, running, commands(block))
        (operator.home / "id_ed25519.pub").write_text(SSH_KEY + "\n")
        run(operator, "kt keys generate")
        put_and_seen(operator)
        # The operator's string with a password stands in a variable, as the page advises.
        operator.environment["KT_LOG"] = replaced(
            "esdb://admin:password@localhost:2113?TlsCaFile=ca.crt", values
        )
        for heading in ("## Changing intervals", "## Rotating the signer key", "## Erasing"):
            for block in blocks(OPERATIONS, heading):
                for command in commands(block):
                    run(operator, replaced(command, {"-c kt.toml": "-c people/kt.toml"}))
        assert any("max_interval" in line and "300" in line for line in run(operator, "kt config show"))
        assert len(list((operator.home / "people/keys/signer/retired").glob("*.pem"))) == 1
        assert any("erased" in line for line in run(operator, f"kt get {ALICE}"))
        backup, scavenge = upkeep("backup"), upkeep("scavenge")
        run(operator, replaced(scavenge, values))
        run(operator, replaced(backup, {"/backup": str(tmp_path)}))
    shutil.rmtree(operator.home / "node-data")
    run(operator, upkeep("--check").replace("node-data", "new-data"), code=2)
    (block,) = blocks(OPERATIONS, "## Backup and lost disks")
    for command in commands(block):
        run(operator, replaced(command, {"/backup": str(tmp_path)}))
    with ExitStack() as running:
        (block,) = blocks(OPERATIONS, "### The embedded node with users")
        again = [command for command in commands(block) if ready_when(command) or "status" in command]
        values = bring_up(
            operator, running, [replaced(command, {"node-data": "new-data"}) for command in again]
        )
        operator.environment["KT_LOG"] = replaced(
            "esdb://admin:password@localhost:2113?TlsCaFile=ca.crt", values
        )
        put_and_seen(operator)
        assert any("correct in" in line for line in run(operator, "kt audit"))


def put_and_seen(operator: Stranger) -> None:
    """A key is published, and the monitor verifies the head that it is under."""
    run(operator, f"kt put {ALICE} --key id_ed25519.pub")
    spoken = operator.home / "monitor.log"
    until(lambda: '"verified"' in spoken.read_text(), f"the monitor verifies: {spoken.read_text()}")


def make_certificates(operator: Stranger) -> None:
    """As the page makes them for three nodes, for one that is called localhost."""
    (made,) = [block for block in blocks(OPERATIONS, "### Three nodes with TLS") if "openssl" in block]
    assert "for node in node1 node2 node3;" in made
    run(operator, made.replace("for node in node1 node2 node3;", "for node in localhost;"))
    # As strictly as Python from 3.13 on asks for.
    run(operator, "openssl verify -x509_strict -CAfile ca.crt localhost.crt")


def upkeep(word: str) -> str:
    """The one command of the page's list of upkeep with this word."""
    (block,) = blocks(OPERATIONS, "### Upkeep of the embedded node")
    (command,) = [command for command in commands(block) if word in command.split()]
    return command


def ready_when(command: str) -> str | None:
    """What a process that goes on says when it is ready; None for a command that ends."""
    return next((ready for start, ready in GOING_ON.items() if command.startswith(start)), None)


def bring_up(operator: Stranger, running: ExitStack, lines: list[str]) -> dict[str, str]:
    """Run the lines in order, those that go on until ``running`` ends; what stands for the page's address."""
    values: dict[str, str] = {}
    for line in lines:
        command = replaced(line, values)
        if (ready := ready_when(command)) is not None:
            spoken = running.enter_context(going_on(operator, command, ready)).read_text()
            if port := re.search(r"listening on \S+:(\d+)", spoken):
                values["localhost:2113"] = f"localhost:{port[1]}"
            if url := re.search(r'"url": "([^"]+)"', spoken):
                operator.environment["KT_SERVER"] = url[1]
        elif command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            operator.environment[name] = value
        else:
            run(operator, command, typed="password\n")
    return values


@contextmanager
def going_on(someone: Stranger, command: str, ready: str, **environment: str) -> Iterator[Path]:
    """A process that goes on, from when it says ``ready`` to a clean end; the file with what it says."""
    spoken = someone.home / f"{command.split()[1]}.log"
    with spoken.open("wb") as file:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {KT.rpartition('/')[0]}/{command}"],
            cwd=someone.home,
            env=someone.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    try:
        until(lambda: ready in spoken.read_text() or process.poll() is not None, f"{command}: {ready}", 90)
        assert process.poll() is None, spoken.read_text()
        yield spoken
        process.send_signal(signal.SIGINT)
        assert process.wait(40) == 0, spoken.read_text()
    finally:
        process.kill()
        process.wait()


def run(someone: Stranger, command: str, *, typed: str = "", code: int = 0) -> tuple[str, ...]:
    """Run one command, which has to end with ``code``; the lines that it says."""
    (printed,) = run_in_shell(someone, [command], typed=typed)
    assert printed.code == code, (command, printed)
    return printed.lines
