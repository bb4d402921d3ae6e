"""The requirements of pyproject.toml, or constraints.txt, as they are for some version of Python: a program.

  python -m tools.requirements VERSION [EXTRA...]      the requirements, and those of optional groups
  python -m tools.requirements VERSION --constraints   the constraints

Markers are evaluated for VERSION, "3.14" for instance, and dropped. pip evaluates them for the Python that it
runs on, so it cannot say by itself what another version would install.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def for_version(lines: Iterable[str], version: str) -> Iterator[str]:
    """The requirements among ``lines`` that hold for ``version``, without their markers."""
    environment = {"python_version": version, "python_full_version": f"{version}.0", "extra": ""}
    for line in lines:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            requirement.marker = None
            yield str(requirement)


def requirements(version: str, extras: Iterable[str] = ()) -> list[str]:
    """What ``version`` needs at run time, and for the optional groups ``extras``."""
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
