"""A member of a cluster that speaks gossip over gRPC and nothing else but empty streams: a program.

  python -m tests.eventstore.stub_member STATE [CERTIFICATE KEY]

It listens on a free port of 127.0.0.1 and prints it. ``STATE`` is a JSON file that is read anew for each
question: ``{"members": [[port, state, alive], ...]}`` is what it answers, ``{"silent": true}`` that it takes
questions and never answers. Reads of streams find none.
"""

from __future__ import annotations

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from kt_es.eventstore.driver import (
    gossip_pb2,
    gossip_pb2_grpc,
    shared_pb2,
    streams_pb2,
    streams_pb2_grpc,
)


class Gossip(gossip_pb2_grpc.GossipServicer):
    def __init__(self, state: Path) -> None:
        self._state = state

    def Read(self, request: shared_pb2.Empty, context: grpc.ServicerContext) -> gossip_pb2.ClusterInfo:
        told = json.loads(self._state.read_text())
        if told.get("silent"):
            ended = threading.Event()
            context.add_callback(ended.set)
            ended.wait()
        return gossip_pb2.ClusterInfo(
            members=[
                gossip_pb2.MemberInfo(
                    state=gossip_pb2.MemberInfo.VNodeState.Value(state),
                    is_alive=alive,
                    http_end_point=gossip_pb2.EndPoint(address="127.0.0.1", port=port),
                )
                for port, state, alive in told["members"]
            ]
        )


class Streams(streams_pb2_grpc.StreamsServicer):
    def Read(self, request: streams_pb2.ReadReq, context: grpc.ServicerContext) -> Any:
        name = request.options.stream.stream_identifier
        yield streams_pb2.ReadResp(
            stream_not_found=streams_pb2.ReadResp.StreamNotFound(stream_identifier=name)
        )


def main(state: str, *tls: str) -> None:
    server = grpc.server(ThreadPoolExecutor(8))
    gossip_pb2_grpc.add_GossipServicer_to_server(Gossip(Path(state)), server)
    streams_pb2_grpc.add_StreamsServicer_to_server(Streams(), server)
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
