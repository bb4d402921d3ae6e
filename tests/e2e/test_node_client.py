"""The official client for Node against the embedded node, or against ``KT_TEST_ESDB``.

The cases are programs in ``nodejs/``. The client is installed by npm into pytest's cache directory, in the
versions of ``package-lock.json``; where that is not possible, the test is skipped and says why.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.nodes import given_or_own_node

pytestmark = pytest.mark.e2e
PROGRAMS = Path(__file__).parent / "nodejs"
INSTALL = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=0"]
INSTALL_PATIENCE = 90.0  # seconds
RUN_PATIENCE = 80.0
OLDEST_NODE = 20  # what the client asks for


def _installed(cache: Path) -> Path:
    """The directory with the client's ``node_modules``, made if it is not there yet."""
    lock = (PROGRAMS / "package-lock.json").read_bytes()
    ready = cache / hashlib.sha256(lock).hexdigest()[:16]
    if ready.exists():
        return ready
    trial = cache / f"trial-{os.getpid()}"
    shutil.rmtree(trial, ignore_errors=True)
    trial.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(PROGRAMS / name, trial)
    try:
        done = subprocess.run(
            INSTALL, cwd=trial, capture_output=True, text=True, timeout=INSTALL_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not install the client in time")
    if done.returncode:
        pytest.skip(f"npm cannot install the client: {done.stderr.strip()[-300:]}")
    try:
        trial.rename(ready)
    except OSError:  # another worker was faster
        shutil.rmtree(trial)
    return ready


@pytest.fixture(scope="module")
def programs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the programs beside the installed client."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").partition(".")[0]) < OLDEST_NODE:
        pytest.skip(f"the client needs Node {OLDEST_NODE}, this is {version.strip()}")
    kept = getattr(request.config, "cache", None)
    cache = kept.mkdir("node-client") if kept is not None else tmp_path_factory.mktemp("node-client")
    place = tmp_path_factory.mktemp("programs")
    (place / "node_modules").symlink_to(_installed(cache) / "node_modules")
    for program in PROGRAMS.glob("*.mjs"):
        shutil.copy(program, place)
    return place


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with given_or_own_node(tmp_path_factory.mktemp("node")) as uri:
        yield uri


@pytest.mark.parametrize("program", ["streams.mjs", "groups.mjs"])
def test_the_client_for_node_gets_what_it_expects(programs: Path, uri: str, program: str) -> None:
    done = subprocess.run(
        ["node", program, uri],
        cwd=programs,
        capture_output=True,
        text=True,
        timeout=RUN_PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = {told["name"]: told["failure"] for told in map(json.loads, done.stdout.splitlines())}
    assert len(results) > 10
    failed = {name: failure for name, failure in results.items() if failure is not None}
    assert not failed, "\n\n".join(f"{name}: {failure}" for name, failure in failed.items())
