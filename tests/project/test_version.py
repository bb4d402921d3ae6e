"""The version stands in ``kt_es.__version__``; everything else takes it from there or agrees with it."""

from __future__ import annotations

import importlib.metadata
import json
import tomllib
from pathlib import Path

from packaging.version import Version

import kt_es

ROOT = Path(__file__).parents[2]


def test_the_version_stands_once() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in pyproject["project"]
    assert pyproject["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "kt_es.__version__"}
    assert str(Version(kt_es.__version__)) == kt_es.__version__


def test_what_is_installed_has_this_version() -> None:
    assert importlib.metadata.version("kt-es") == kt_es.__version__, "install again: make setup"


def test_copies_of_the_version_agree() -> None:
    assert f"image: kt-es:{kt_es.__version__}\n" in (ROOT / "docker-compose.yml").read_text()
    openapi = json.loads((ROOT / "docs/openapi.json").read_text())
    assert openapi["info"]["version"] == kt_es.__version__
