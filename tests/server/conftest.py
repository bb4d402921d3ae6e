"""A directory in which alice has published, a front end of it, and an HTTP server around an application."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.reference.doors import LONG, App, Door, door
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


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def patient(app: App) -> Iterator[Door]:
    with door(app, LONG) as made:
        yield made
