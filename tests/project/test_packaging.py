"""What each supported Python installs: few wheels for a client, one library of the log, nothing compiled."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from kt_es.extras import MODULES
from tools.requirements import constraints, requirements

ROOT = Path(__file__).parents[2]
THIS = f"{sys.version_info.major}.{sys.version_info.minor}"
SUPPORTED = ("3.11", "3.12", "3.13", "3.14")


def names(lines: list[str]) -> set[str]:
    return {Requirement(line).name for line in lines}


@pytest.mark.parametrize("version", SUPPORTED)
def test_each_python_has_one_client_library(version: str) -> None:
    used = names(requirements(version, ["server"])) & {"esdbclient", "kurrentdbclient"}
    assert used == {"kurrentdbclient" if version == "3.14" else "esdbclient"}
    assert used <= names(constraints(version))
    pinned = [line for line in constraints(version) if line.startswith("grpcio==")]
    assert len(pinned) == 1


@pytest.mark.parametrize("version", SUPPORTED)
def test_a_client_needs_few_libraries(version: str) -> None:
    assert names(requirements(version)) == {
        *("cryptography", "PyNaCl", "cbor2", "structlog", "click", "httpx", "platformdirs", "certifi")
    }


@pytest.mark.parametrize("extra", MODULES)
def test_the_modules_of_an_extra_are_those_of_its_requirements(extra: str) -> None:
    distributions = packages_distributions()
    found = {canonicalize_name(name) for module in MODULES[extra] for name in distributions[module]}
    needed = set(requirements(THIS, [extra])) - set(requirements(THIS))
    assert found == {canonicalize_name(name) for name in names(list(needed))}


@pytest.mark.parametrize("file", ["Makefile", "Dockerfile", "docs/OPERATIONS.md"])
def test_whoever_runs_a_directory_installs_the_server(file: str) -> None:
    installed = re.findall(r"install [^\n]*'\.\[([a-z,]+)\]'", (ROOT / file).read_text())
    # The fuzzer comes on top of the rest.
    assert installed
    assert all("server" in extras.split(",") for extras in installed if extras != "fuzz")


def test_the_versions_are_those_of_the_project() -> None:
    said = SpecifierSet(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"])
    versions = [f"3.{minor}" for minor in range(8, 20)]
    assert tuple(version for version in versions if said.contains(f"{version}.1")) == SUPPORTED


@pytest.mark.parametrize("version", ["3.13", "3.14"])
def test_every_dependency_has_a_wheel(version: str, tmp_path: Path) -> None:
    """Asks the index, so it is skipped where there is none; nothing is installed."""
    base = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--dry-run"]
    base += ["--target", str(tmp_path), "--only-binary=:all:", "--python-version", version]
    for platform in ("manylinux2014_x86_64", "manylinux_2_28_x86_64", "manylinux_2_34_x86_64"):
        base += ["--platform", platform]
    # Something small first: whether there is an index at all.
    if subprocess.run([*base, "certifi"], capture_output=True, timeout=120, check=False).returncode != 0:
        pytest.skip("no package index can be reached")
    everything = requirements(version, ["server", "openpgp", "shared"])
    done = subprocess.run([*base, *everything], capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
