"""The client in Go (``examples/go``), an implementation of its own from the documents, against a front end.

Its code for gRPC is generated here as its README says, so a change of kt.proto needs no other. Go fetches the
modules of ``go.sum`` through its proxy, once. Where Go or the modules are missing, the tests are skipped and
say why; what cannot be generated, built or verified is a failure.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.certificates import Certified, certify
from tests.e2e.go_modules import BUILD_PATIENCE, FIXED, fetch_modules
from tests.e2e.processes import Up, running_up
from tests.e2e.test_grpc import caught_up, front_end, port_of, trusting

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0
FAST = ("--min-interval", "0.05", "--max-interval", "1")
ALICE, BOB, CAROL, DAVE = (f"{name}@example.org" for name in ("alice", "bob", "carol", "dave"))
PROFILE = b"a key of alice\n"


@dataclass(frozen=True, slots=True)
class Module:
    """A copy of ``examples/go`` with its generated code, and the environment of ``go``."""

    folder: Path
    environment: Mapping[str, str]

    @property
    def program(self) -> Path:
        return self.folder / "kt-go"

    def go(
        self, *words: str, seconds: float = BUILD_PATIENCE, **more: str
    ) -> subprocess.CompletedProcess[str]:
        return self.run("go", *words, seconds=seconds, **more)

    def run(
        self, *words: str | Path, seconds: float = PATIENCE, **more: str
    ) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, **more}
        return subprocess.run(
            [str(word) for word in words],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Module:
    module = _copied(tmp_path_factory.mktemp("go"))
    fetch_modules(module.folder)
    for words in (
        ["generate", "./..."],
        ["build", "-o", "kt-go", "."],
        ["test", "-c", "-o", "live.test", "."],
    ):
        done = module.go(*words)
        assert done.returncode == 0, done.stderr
    return module


def _copied(base: Path) -> Module:
    """The sources without generated code, and protoc of grpcio-tools on the path."""
    folder = base / "examples/go"
    shutil.copytree(ROOT / "examples/go", folder, ignore=shutil.ignore_patterns("ktv1", "kt-go"))
    for name in ("proto", "docs"):
        (base / name).symlink_to(ROOT / name)
    tools = base / "bin"
    tools.mkdir()
    protoc = tools / "protoc"
    protoc.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m grpc_tools.protoc "$@"\n')
    protoc.chmod(0o755)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    return Module(folder, {**os.environ, **FIXED, "GOBIN": str(tools), "PATH": path})


@dataclass(frozen=True, slots=True)
class Live:
    """A front end with gRPC over TLS, and its directory."""

    up: Up
    server: str
    certified: Certified

    @property
    def options(self) -> tuple[str | Path, ...]:
        return "-ca", self.certified.authority

    @property
    def where(self) -> tuple[str, str]:
        return self.server, self.up.vkey


@pytest.fixture(scope="module")
def live(module: Module, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """alice has a profile, the one of bob was erased, carol has nothing."""
    folder = tmp_path_factory.mktemp("live")
    with running_up(folder / "data", *FAST) as up:
        owner = up.stranger(folder / "owner")
        key = owner.home / "id"
        key.write_bytes(PROFILE)
        owner.kt("keys", "generate")
        for label in (ALICE, BOB):
            owner.kt("put", label, "--key", key, "--type", "raw")
        owner.kt("erase", BOB, "--yes")
        certified = certify(folder)
        options = ("--tls-cert", certified.certificate, "--tls-key", certified.key)
        with front_end(up, folder, *options) as (_, served):
            with trusting(certified, served) as stub:
                caught_up(stub, up)
            yield Live(up, f"127.0.0.1:{port_of(served)}", certified)


def _tests(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """The outcome of each test of Go by its name."""
    lines = (line.split() for line in done.stdout.splitlines() if line.startswith("--- "))
    return {words[2]: words[1].rstrip(":") for words in lines}


def test_the_sources_are_formatted_and_correct(module: Module) -> None:
    listed = module.run("gofmt", "-l", ".")
    assert (listed.returncode, listed.stdout) == (0, ""), listed
    vetted = module.go("vet", "./...")
    assert vetted.returncode == 0, vetted.stderr
    # Modules that are needed are there, and no others.
    tidy = module.go("mod", "tidy", "-diff")
    assert tidy.returncode == 0, tidy.stdout + tidy.stderr


def test_its_retries_are_those_of_the_document() -> None:
    written = re.findall(r"const retries = `(.*?)`", (ROOT / "examples/go/service.go").read_text(), re.DOTALL)
    page = re.findall(r"```json\n(.*?)```", (ROOT / "docs/GRPC.md").read_text(), re.DOTALL)
    assert json.loads(written[0]) == json.loads(page[0])


def test_the_examples_of_formats(module: Module) -> None:
    done = module.go("test", "-count", "1", "-v", "./verify")
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = _tests(done)
    assert len(outcomes) >= 5
    assert set(outcomes.values()) == {"PASS"}


def test_answers_are_verified_and_every_changed_byte_is_refused(module: Module, live: Live) -> None:
    described: dict[str, Any] = {
        "Server": live.server,
        "Vkey": live.up.vkey,
        "Authority": str(live.certified.authority),
        "Present": ALICE,
        "Erased": BOB,
        "Absent": CAROL,
        "Profile": b64encode(PROFILE).decode(),
    }
    done = module.run("./live.test", "-test.v", KT_GO_LIVE=json.dumps(described))
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = _tests(done)
    assert len(outcomes) >= 5
    assert set(outcomes.values()) == {"PASS"}, done.stdout


def test_the_program_looks_up(module: Module, live: Live, tmp_path: Path) -> None:
    def look_up(label: str, *options: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = module.run(module.program, *options, "lookup", *live.where, label)
        assert done.returncode == code, done
        return done

    state = tmp_path / "state"
    options = (*live.options, "-state", state)
    assert "raw id (15 bytes)" in look_up(ALICE, *options).stdout
    first = json.loads(state.read_text())
    assert "its profile was erased" in look_up(BOB, *options).stdout
    assert "proven absent in epoch" in look_up(CAROL, *options, code=3).stderr
    assert json.loads(state.read_text())["Trusted"]["Size"] >= first["Trusted"]["Size"]
    # What is trusted is used: another log of this size is refused.
    first["Trusted"]["Root"][0] ^= 1
    state.write_text(json.dumps(first))
    assert "consistency: " in look_up(ALICE, *options, code=4).stderr
    # Its own authorities do not know the front end.
    assert "certificate" in look_up(ALICE, code=1).stderr
    other = live.up.vkey.replace("localhost/", "localhost:1/")
    refused = module.run(module.program, *live.options, "lookup", live.server, other, ALICE)
    assert refused.returncode == 1
    assert "no Ed25519 verifier key" in refused.stderr


def test_the_program_watches(module: Module, live: Live, tmp_path: Path) -> None:
    words = (*live.options, "-heads", "3", "-state", tmp_path / "state", "watch", *live.where)
    epochs = []
    # The second watch goes on where the first one ended.
    for _ in range(2):
        done = module.run(module.program, *words)
        assert done.returncode == 0, done
        epochs += [int(line.split()[1].rstrip(":")) for line in done.stdout.splitlines()]
    assert epochs == list(range(epochs[0], epochs[0] + 6))


def test_the_program_publishes_what_kt_reads(module: Module, live: Live, tmp_path: Path) -> None:
    key = tmp_path / "dave.pem"
    words = (*live.options, "publish", *live.where, DAVE, key, "phone", "hello")
    done = module.run(module.program, *words)
    assert done.returncode == 0, done
    assert done.stdout.startswith(f"{DAVE}: accepted in epoch ")
    assert key.stat().st_mode & 0o777 == 0o600
    found = live.up.stranger(tmp_path / "reader").kt("get", DAVE)
    assert "phone" in found.out
    again = module.run(module.program, *words)
    assert again.returncode == 1
    assert "has an entry already" in again.stderr
