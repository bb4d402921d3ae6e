"""Cosigned checkpoints over gRPC: the same as over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from kt_es.formats.heads import HeadEvent
from kt_es.server.cosigning import Cosigners
from tests.reference.cosigning import CosigningParty
from tests.reference.frontends import Front, front, until
from tests.reference.grpc_doors import Door, grpc_door
from tests.reference.signed_streams import SignedStreams

MONITOR, STRANGER = CosigningParty("gamma"), CosigningParty("stranger")
AT = 1_700_000_000


@pytest.fixture
def door() -> Iterator[Door]:
    streams = SignedStreams()
    streams.put_user("alice")
    streams.epoch()
    made = Front(streams, cosigners=Cosigners((), (MONITOR.key,)))
    with front(streams, made=made), grpc_door(made) as door:
        yield door
        assert not made.errors


def test_what_is_handed_in_is_answered(door: Door) -> None:
    streams = door.front.streams
    (event,) = streams.log.read(streams.names.heads)
    note = HeadEvent.decode(event.data).heads_checkpoint
    assert list(door.call("Cosigned").heads) == []
    cosigned = note + MONITOR.line(note, AT)
    assert door.call("Cosign", note=cosigned).new
    until(lambda: list(door.call("Cosigned").heads) == [cosigned])
    assert not door.call("Cosign", note=cosigned).new
    assert door.front.get("/v1/cosigned").json() == {"heads": [cosigned], "mutations": []}
    failure = door.failure("Cosign", note=note + STRANGER.line(note, AT))
    assert (failure.code, failure.reason) == (grpc.StatusCode.PERMISSION_DENIED, "unauthorized")
    failure = door.failure("Cosign", note="junk")
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "malformed")
