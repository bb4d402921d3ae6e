"""Choosing the member of a cluster to connect to: gossip, and the leader that is alive.

Members exchange their states by gossip. After a failure they disagree for seconds. A leader that has stopped
stays listed as a leader that is not alive until it is started again. During an election, one member may list
a leader that another member lists as dead. So a member is chosen only if it lists itself as a living leader.

``choose`` is a pure function of the answers. ``find_leader`` collects answers with a given function, which is
``ask_members`` outside of tests.
"""

from __future__ import annotations

import queue
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import grpc

from kt_es.eventstore import driver
from kt_es.eventstore.driver import gossip_pb2, gossip_pb2_grpc, shared_pb2

# In seconds. A frozen member never answers, so after the first answer the others have at most GRACE left.
DEADLINE = 2.0
GRACE = 0.5

_LEADER = gossip_pb2.MemberInfo.VNodeState.Leader


@dataclass(frozen=True, slots=True)
class Member:
    """The state of a member as one member lists it. ``target`` is the advertised ``address:port``."""

    target: str
    leads: bool
    is_alive: bool


Answers = Mapping[str, Sequence[Member]]
"""The members that each asked target listed. A target that did not answer is missing."""

Targets = Mapping[str, str | None]
"""Targets to ask. The value is the host name in the certificate, or None if it is the host of the target."""

Ask = Callable[[Targets], Answers]
"""Asks several targets at the same time, within one deadline."""


def find_leader(seeds: Targets, ask: Ask) -> str | None:
    """Return the target of the leader, or None if no member confirms that it leads.

    All seeds are asked first, then the members that they list as leaders. If none of these confirms it, all
    other members that are listed as alive are asked. A server that lists only itself is not a cluster, and
    the result is the seed under which it was asked.
    """
    answers = dict(ask(seeds))
    for seed in seeds:
        if len(answers.get(seed, ())) == 1:
            return seed
    for named in (_leaders(answers), _living(answers)):
        missing = dict.fromkeys(target for target in named if target not in answers)
        if missing:
            answers.update(ask(missing))
        leader = choose(answers)
        if leader is not None:
            return leader
    return None


def choose(answers: Answers) -> str | None:
    """Return the member that lists itself as a living leader.

    If there are several, the result is the one that most members list as a living leader. The result is None
    if there is none, or if the first two are listed equally often, because the election is not finished then.
    """
    confirmed = [
        target
        for target, members in answers.items()
        if any(_is_leader(m) and m.target == target for m in members)
    ]
    if len(confirmed) < 2:
        return confirmed[0] if confirmed else None
    votes = _leaders(answers)
    first, second = sorted(confirmed, key=lambda target: -votes[target])[:2]
    return first if votes[first] > votes[second] else None


def confirms(target: str, members: Sequence[Member]) -> bool:
    """Return whether ``target`` lists itself as a living leader. ``members`` is what ``target`` listed."""
    return any(member.target == target and _is_leader(member) for member in members)


def _is_leader(member: Member) -> bool:
    return member.leads and member.is_alive


def _leaders(answers: Answers) -> Counter[str]:
    """Return how many members list each target as a living leader."""
    return Counter(member.target for member in _all(answers) if _is_leader(member))


def _living(answers: Answers) -> Counter[str]:
    return Counter(member.target for member in _all(answers) if member.is_alive)


def _all(answers: Answers) -> Iterable[Member]:
    return (member for members in answers.values() for member in members)


def ask_members(
    channels: Mapping[str, grpc.Channel],
    metadata: tuple[tuple[str, str], ...],
    credentials: grpc.CallCredentials | None,
    failed: Callable[[str], None],
) -> Answers:
    """Return the members that each target lists. Targets that fail or do not answer in time are missing.

    ``failed`` is called with the details of each failure.
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
