"""A directory with one epoch, in which alice has published, and a front end of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.reference.frontends import Front, front
from tests.reference.signed_streams import SignedStreams


@pytest.fixture
def streams() -> SignedStreams:
    streams = SignedStreams()
    streams.put_user("alice")
    streams.epoch()
    return streams


@pytest.fixture
def running(streams: SignedStreams) -> Iterator[Front]:
    with front(streams) as made:
        yield made
