"""What each supported Python installs: one client library, and nothing that has to be compiled."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tools.requirements import constraints, requirements

ROOT = Path(__file__).parents[2]
SUPPORTED = ("3.11", "3.12", "3.13", "3.14")


def names(lines: list[str]) -> set[str]:
    return {Requirement(line).name for line in lines}


@pytest.mark.parametrize("version", SUPPORTED)
def test_each_python_has_one_client_library(version: str) -> None:
    used = names(requirements(version)) & {"esdbclient", "kurrentdbclient"}
    assert used == {"kurrentdbclient" if version == "3.14" else "esdbclient"}
    assert used <= names(constraints(version))
    pinned = [line for line in constraints(version) if line.startswith("grpcio==")]
    assert len(pinned) == 1


def test_the_versions_are_those_that_the_project_says() -> None:
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
    done = subprocess.run(
        [*base, *requirements(version)], capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stderr[-2_000:]
