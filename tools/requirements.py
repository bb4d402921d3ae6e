"""Program that prints the requirements of pyproject.toml, or constraints.txt, for one version of Python.

  python -m tools.requirements VERSION [EXTRA...]      the requirements, and those of optional groups
  python -m tools.requirements VERSION --constraints   the constraints

Markers are evaluated for VERSION, for instance "3.14", and removed. pip evaluates markers for the Python that
runs it, so pip alone cannot tell what another version would install.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def for_version(lines: Iterable[str], version: str) -> Iterator[str]:
    """Yield the requirements in ``lines`` that apply to ``version``, without their markers."""
    environment = {"python_version": version, "python_full_version": f"{version}.0", "extra": ""}
    for line in lines:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            requirement.marker = None
            yield str(requirement)


def requirements(version: str, extras: Iterable[str] = ()) -> list[str]:
    """Return the requirements of ``version`` at run time and for the optional groups ``extras``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"]]
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return list(for_version(lines, version))


def constraints(version: str) -> list[str]:
    return list(for_version((ROOT / "constraints.txt").read_text().splitlines(), version))


def main(version: str, *words: str) -> None:
    lines = constraints(version) if words == ("--constraints",) else requirements(version, words)
    print("\n".join(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
