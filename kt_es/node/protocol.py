"""The protocol's messages and servicer classes, from whichever client library is installed.

The node uses nothing else of a client library. ``kt_es.eventstore.driver`` explains why there are two.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING or find_spec("esdbclient") is not None:
    from esdbclient.protos.Grpc import (
        gossip_pb2,
        gossip_pb2_grpc,
        persistent_pb2,
        persistent_pb2_grpc,
        shared_pb2,
        status_pb2,
        streams_pb2,
        streams_pb2_grpc,
    )
else:
    from kurrentdbclient.protos.v1 import (
        gossip_pb2,
        gossip_pb2_grpc,
        persistent_pb2,
        persistent_pb2_grpc,
        shared_pb2,
        status_pb2,
        streams_pb2,
        streams_pb2_grpc,
    )

__all__ = [
    "gossip_pb2",
    "gossip_pb2_grpc",
    "persistent_pb2",
    "persistent_pb2_grpc",
    "shared_pb2",
    "status_pb2",
    "streams_pb2",
    "streams_pb2_grpc",
]
