"""Program that runs the quick tests on every installed Python that is supported, except its own one.

The newest Python runs all quick tests. Those between it and the own one run the tests of the lower layers.

  python -m tools.pythons

Each Python gets a virtual environment, for instance .venv-3.12. Interpreters are searched on PATH and in the
folders of pyenv. A file that a version manager puts on PATH may not work, so each candidate is run first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parents[1]
# What differs from one Python to the next shows here in a minute or two.
PURE = ("crypto", "formats", "core", "merkle", "client", "importers", "process", "witness")
# The folders of tests that take a few minutes together.
QUICK = (*PURE, "ledger", "cli", "projections", "signer")
PYTEST = ("-q", "-n", "3", "--dist", "worksteal")
INSTALL = ("install", "--quiet", "--disable-pip-version-check", "-c", "constraints.txt")
PROBE = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"


def supported() -> list[str]:
    """Return the versions that pyproject.toml allows: "3.11" and so on."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    allowed = SpecifierSet(project["requires-python"])
    return [version for minor in range(100) if (version := f"3.{minor}") in allowed]


def candidates(version: str) -> Iterator[Path]:
    """Yield files that may be an interpreter of ``version``: first those on PATH, then those of pyenv."""
    name = f"python{version}"
    for folder in os.get_exec_path():
        if found := shutil.which(name, path=folder):
            yield Path(found)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    releases = [
        path for path in (pyenv / "versions").glob(f"{version}.*") if path.name.split(".")[2].isdigit()
    ]
    for release in sorted(releases, key=lambda path: int(path.name.split(".")[2]), reverse=True):
        yield release / "bin" / name


def works(python: Path, version: str) -> bool:
    """Return whether ``python`` runs, has that version, and can make virtual environments."""
    try:
        done = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.strip() == version


def find(version: str) -> Path | None:
    """Return the first interpreter of ``version`` that works; None if there is none."""
    return next((python for python in candidates(version) if works(python, version)), None)


def run(*command: str | Path) -> bool:
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def tested(version: str, python: Path, folders: Sequence[str]) -> bool:
    """Install everything for ``python`` and run the tests. Return whether all of this succeeded."""
    home = ROOT / f".venv-{version}"
    inside = home / "bin" / "python"
    if not works(inside, version) and not run(python, "-m", "venv", "--clear", home):
        return False
    return run(inside, "-m", "pip", *INSTALL, "-e", ".[dev,server,openpgp,shared]") and run(
        inside, "-m", "pytest", *PYTEST, *(f"tests/{folder}" for folder in folders)
    )


def main() -> int:
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    print(f"Python {own}: skipped, `make test` runs everything on it", flush=True)
    others = [version for version in supported() if version != own]
    found = {version: python for version in others if (python := find(version)) is not None}
    failed = []
    for version in others:
        if version not in found:
            print(f"Python {version}: skipped, no interpreter with venv works here", flush=True)
            continue
        print(f"Python {version}: {found[version]}", flush=True)
        if not tested(version, found[version], QUICK if version == max(found, key=Version) else PURE):
            failed.append(version)
    if failed:
        print(f"failed on Python {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
