"""A member of a cluster that speaks gossip over gRPC and has nothing but empty streams: a program.

  python -m tests.eventstore.stub_member STATE [CERTIFICATE KEY]

It listens on a free port of 127.0.0.1 and prints it. ``STATE`` is a JSON file that is read anew for each
question: ``{"members": [[port, state, alive], ...]}`` is what it answers, ``{"silent": true}`` that it takes
questions and never answers, ``"stopping": true`` that it refuses new calls and keeps those that are open.
How many subscriptions are open stands in a file beside it, ``STATE`` with the suffix ``.open``.
Reads of streams find none, subscriptions to streams stay open, and those to groups are never confirmed.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from kt_es.node.protocol import (
    gossip_pb2,
    gossip_pb2_grpc,
    persistent_pb2_grpc,
    shared_pb2,
    streams_pb2,
    streams_pb2_grpc,
)


class Answers:
    """What the state file says now."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._lock = threading.Lock()
        self._open = 0

    @contextmanager
    def subscription(self) -> Iterator[None]:
        """Counts one for as long as it is open."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, more: int) -> None:
        with self._lock:
            self._open += more
            fresh = self._state.with_suffix(".counted")
            fresh.write_text(str(self._open))
            fresh.replace(self._state.with_suffix(".open"))

    def members(self) -> list[tuple[int, str, bool]] | None:
        """None to stay silent."""
        answers = json.loads(self._state.read_text())
        return None if answers.get("silent") else answers["members"]

    def is_stopping(self) -> bool:
        return bool(json.loads(self._state.read_text()).get("stopping"))


def hold(context: grpc.ServicerContext) -> None:
    """Keep a call open until the other side ends it."""
    ended = threading.Event()
    if context.add_callback(ended.set):
        ended.wait()


class Gossip(gossip_pb2_grpc.GossipServicer):
    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def Read(self, request: shared_pb2.Empty, context: grpc.ServicerContext) -> gossip_pb2.ClusterInfo:
        members = self._answers.members()
        if members is None:
            hold(context)
        return gossip_pb2.ClusterInfo(
            members=[
                gossip_pb2.MemberInfo(
                    state=gossip_pb2.MemberInfo.VNodeState.Value(state),
                    is_alive=alive,
                    http_end_point=gossip_pb2.EndPoint(address="127.0.0.1", port=port),
                )
                for port, state, alive in members or ()
            ]
        )


class Streams(streams_pb2_grpc.StreamsServicer):
    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def Read(self, request: streams_pb2.ReadReq, context: grpc.ServicerContext) -> Any:
        if self._answers.is_stopping():
            context.abort(grpc.StatusCode.UNAVAILABLE, "Server Is Not Ready")
        if request.options.HasField("subscription"):
            yield streams_pb2.ReadResp(confirmation=streams_pb2.ReadResp.SubscriptionConfirmation())
            with self._answers.subscription():
                hold(context)
            return
        name = request.options.stream.stream_identifier
        missing = streams_pb2.ReadResp.StreamNotFound(stream_identifier=name)
        yield streams_pb2.ReadResp(stream_not_found=missing)


class Groups(persistent_pb2_grpc.PersistentSubscriptionsServicer):
    def Read(self, requests: Any, context: grpc.ServicerContext) -> Any:
        hold(context)
        yield from ()


def main(state: str, *tls: str) -> None:
    server = grpc.server(ThreadPoolExecutor(16))
    answers = Answers(Path(state))
    # Generated code, without types.
    gossip_pb2_grpc.add_GossipServicer_to_server(Gossip(answers), server)  # type: ignore[no-untyped-call]
    streams_pb2_grpc.add_StreamsServicer_to_server(Streams(answers), server)  # type: ignore[no-untyped-call]
    persistent_pb2_grpc.add_PersistentSubscriptionsServicer_to_server(Groups(), server)  # type: ignore[no-untyped-call]
    if tls:
        certificate, key = (Path(name).read_bytes() for name in tls)
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
