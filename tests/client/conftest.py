"""A directory of five epochs, and a client that saw the second of them last."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kt_es.client.trusted import Trusted, begin
from tests.client.lookups import PINNED, built
from tests.reference.directory import Directory


@pytest.fixture(scope="module")
def directory() -> Directory:
    """Shared: no test changes it."""
    return built()


@pytest.fixture(scope="module")
def trusted(directory: Directory) -> Trusted:
    """A client that saw epoch 2 last."""
    return replace(begin(PINNED, directory.configs), checkpoint=directory.heads_checkpoint(2))
