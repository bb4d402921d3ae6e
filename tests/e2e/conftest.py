"""Fixtures over real processes, and what these said where a test fails."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import SPOKEN_TAIL, Stranger, Up, running_up


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A running directory with short intervals, for all tests of a module."""
    with running_up(tmp_path_factory.mktemp("directory") / "data") as up:
        yield up


@pytest.fixture
def stranger(directory: Up, tmp_path: Path) -> Stranger:
    """Somebody new to the running directory, who knows its address and its key."""
    return directory.stranger(tmp_path / "home")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the last words of the processes to the report of a failure."""
    report = yield
    if report.failed:
        arguments: dict[str, Any] = getattr(item, "funcargs", {})
        for name, value in arguments.items():
            spoken = getattr(value, "spoken", None)
            if isinstance(spoken, str):
                report.sections.append((f"{name} said", spoken[-SPOKEN_TAIL:]))
    return report
