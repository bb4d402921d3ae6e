"""The modules of a program in Go: fetched once through its proxy. Where that fails, its tests are skipped."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

OLDEST = (1, 24)  # tools are part of go.mod since then
FETCH_PATIENCE = 120.0  # seconds
BUILD_PATIENCE = 600.0
# Nothing is written to go.mod and go.sum, and no other Go is fetched.
FIXED = {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}


def go(
    folder: Path, *words: str, seconds: float = BUILD_PATIENCE, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What ``go`` said in ``folder``."""
    return subprocess.run(
        ["go", *words],
        cwd=folder,
        env={**(os.environ if environment is None else environment), **FIXED},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def fetch_modules(folder: Path) -> None:
    """Fetch what ``go.sum`` in ``folder`` names. Skip the test, and say why, where that cannot be done."""
    if shutil.which("go") is None:
        pytest.skip("go is not installed")
    version = go(folder, "env", "GOVERSION").stdout.strip()
    numbers = version.removeprefix("go").split(".")[:2]
    if tuple(int("".join(filter(str.isdigit, number)) or 0) for number in numbers) < OLDEST:
        pytest.skip(f"the program needs Go {'.'.join(map(str, OLDEST))}, this is {version}")
    try:
        fetched = go(folder, "mod", "download", seconds=FETCH_PATIENCE)
    except subprocess.TimeoutExpired:
        pytest.skip("go did not fetch the modules in time")
    if fetched.returncode:
        pytest.skip(f"go cannot fetch the modules: {fetched.stderr.strip()[-300:]}")
