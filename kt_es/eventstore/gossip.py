"""Asking the members of a cluster over gRPC for the states of all members."""

from __future__ import annotations

import queue
import socket
import time
from collections.abc import Callable, Mapping

import grpc

from kt_es.eventstore import driver
from kt_es.eventstore.discovery import Answers, Member, Targets
from kt_es.eventstore.driver import gossip_pb2, gossip_pb2_grpc, shared_pb2

# In seconds. A frozen member never answers, so after the first answer the others have at most GRACE left.
DEADLINE = 2.0
GRACE = 0.5

_LEADER = gossip_pb2.MemberInfo.VNodeState.Leader


def ask_members(
    channels: Mapping[str, grpc.Channel],
    metadata: tuple[tuple[str, str], ...],
    credentials: grpc.CallCredentials | None,
    failed: Callable[[str], None],
) -> Answers:
    """Return the members that each target lists. Targets that fail or do not answer in time are missing.

    Args:
        channels: a channel for each target.
        failed: called with the details of each failure.
    """
    done: queue.SimpleQueue[grpc.Future[gossip_pb2.ClusterInfo]] = queue.SimpleQueue()
    calls: dict[grpc.Future[gossip_pb2.ClusterInfo], str] = {}
    for target, channel in channels.items():
        call = gossip_pb2_grpc.GossipStub(channel).Read.future(  # type: ignore[no-untyped-call]
            shared_pb2.Empty(), timeout=DEADLINE, metadata=metadata, credentials=credentials
        )
        calls[call] = target
        call.add_done_callback(done.put)
    answers: dict[str, tuple[Member, ...]] = {}
    deadline = time.monotonic() + DEADLINE + GRACE
    for _ in channels:
        try:
            call = done.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        failure = call.exception()
        if failure is not None:
            details = getattr(failure, "details", None)
            failed(str(details() if callable(details) else failure))
        else:
            answers[calls[call]] = tuple(_member(info) for info in call.result().members)
            deadline = min(deadline, time.monotonic() + GRACE)
    for call in calls:
        call.cancel()
    return answers


def _member(info: gossip_pb2.MemberInfo) -> Member:
    point = info.http_end_point
    host = f"[{point.address}]" if ":" in point.address else point.address
    return Member(f"{host}:{point.port}", info.state == _LEADER, info.is_alive)


def seeds_of(spec: driver.ConnectionSpec) -> Targets:
    """Return the targets of a connection string. A ``+discover`` name is resolved to all its addresses."""
    if not spec.scheme.endswith("+discover"):
        return dict.fromkeys(spec.targets)
    seeds: dict[str, str | None] = {}
    for target in spec.targets:
        host, _, port = target.rpartition(":")
        name = host.strip("[]")
        try:
            found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        except OSError:
            # The next round may resolve the name. Until then, the channel to it reports a failure.
            seeds[target] = None
            continue
        for family, _, _, _, address in found:
            ip = str(address[0])
            shown = f"[{ip}]" if family == socket.AF_INET6 else ip
            seeds[f"{shown}:{port}"] = name
    return seeds
