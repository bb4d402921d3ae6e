"""The other Pythons: where they are looked for, and that a candidate has to work."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tools import pythons

OWN = f"{sys.version_info.major}.{sys.version_info.minor}"


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))


def test_the_versions_are_those_of_the_project() -> None:
    assert pythons.supported() == ["3.11", "3.12", "3.13", "3.14"]


def test_a_shim_that_does_not_work_gives_way_to_the_newest_release(tmp_path: Path) -> None:
    real = f'exec {shlex.quote(sys.executable)} "$@"'
    shim = program(tmp_path / "bin" / f"python{OWN}", "exit 127")
    other, older, newer = (
        tmp_path / "pyenv/versions" / name / "bin" / f"python{OWN}"
        for name in (f"{OWN}.11-dev", f"{OWN}.9", f"{OWN}.10")
    )
    for path in (other, older, newer):
        program(path, real)
    assert list(pythons.candidates(OWN)) == [shim, newer, older]
    assert pythons.find(OWN) == newer
    program(shim, real)
    assert pythons.find(OWN) == shim


def test_another_version_under_the_name_does_not_count(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "python3.99", f'exec {shlex.quote(sys.executable)} "$@"')
    assert pythons.find("3.99") is None


def test_each_version_gets_a_line_and_a_failure_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"3.98": tmp_path / "python3.98", "3.99": tmp_path / "python3.99"}
    monkeypatch.setattr(pythons, "supported", lambda: [OWN, "3.97", *found])
    monkeypatch.setattr(pythons, "find", found.get)
    folders: dict[str, Sequence[str]] = {}

    def tested(version: str, python: Path, tried: Sequence[str]) -> bool:
        folders[version] = tried
        return version == "3.98"

    monkeypatch.setattr(pythons, "tested", tested)
    assert pythons.main() == 1
    assert folders == {"3.98": pythons.PURE, "3.99": pythons.QUICK}
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        f"Python {OWN}: skipped, `make test` runs everything on it",
        "Python 3.97: skipped, no interpreter with venv works here",
        f"Python 3.98: {found['3.98']}",
        f"Python 3.99: {found['3.99']}",
    ]
    assert err == "failed on Python 3.99\n"
