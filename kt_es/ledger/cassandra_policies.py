"""What the Cassandra driver asks and tells a session: the order of nodes, retries, nodes that go and come."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import structlog
from cassandra.policies import DCAwareRoundRobinPolicy, HostStateListener, RetryPolicy, TokenAwarePolicy
from cassandra.pool import Host
from cassandra.protocol import OverloadedErrorMessage

AVOIDED = 10.0
"""Seconds for which a node that was silent is asked last. Then the driver knows whether it is down."""

_SHUFFLING = threading.Lock()
_LOG = structlog.get_logger("kt_es.ledger")


class Silent:
    """The nodes that recently did not answer while another node answered. Safe for threads."""

    def __init__(self) -> None:
        self._until: dict[Host, float] = {}

    def note(self, asked: Sequence[Host], answered: Host | None) -> None:
        """Note the nodes that a statement was sent to, in order, and the node that answered it."""
        for node in asked:
            if node is answered:
                return
            self._until[node] = time.monotonic() + AVOIDED

    def __contains__(self, node: Host) -> bool:
        return self._until.get(node, 0.0) > time.monotonic()


class Order(TokenAwarePolicy):  # type: ignore[misc]
    """The nodes for the attempts of a statement: its replicas in a random order, the others, the silent ones.

    Without the random order each attempt would go to the same node first, even if that one hangs.

    The policy of the driver makes the order of a statement step by step, and shuffles a list that all
    statements share. So a statement that is sent again later would often go to its first node again. This
    policy makes the whole order at once.
    """

    def __init__(self, datacenter: str | None, silent: Silent) -> None:
        """Use only nodes of ``datacenter``; None means the datacenter of the contact points."""
        super().__init__(DCAwareRoundRobinPolicy(datacenter or ""), shuffle_replicas=True)
        self._silent = silent

    def make_query_plan(self, working_keyspace: str | None = None, query: object = None) -> Iterator[Host]:
        with _SHUFFLING:
            nodes = list(super().make_query_plan(working_keyspace, query))
        return iter(sorted(nodes, key=self._silent.__contains__))


class Retries(RetryPolicy):  # type: ignore[misc]
    """The retries that the driver makes itself: a node that fails is replaced by the next one at once.

    ``CassandraSession`` makes the retries after a pause. A statement whose query was taken (``_taken``) has
    its answer from another node, so it is not sent again when the connection to the silent node ends.
    """

    def on_unavailable(self, *_: object, **__: object) -> tuple[int, None]:
        return self.RETHROW, None

    def on_request_error(self, query: object, *_: object, error: Exception, **__: object) -> tuple[int, None]:
        if query is None or isinstance(error, OverloadedErrorMessage):
            return self.RETHROW, None
        return self.RETRY_NEXT_HOST, None


class NodeLog(HostStateListener):  # type: ignore[misc]
    """Logs when nodes go and come. The driver calls it."""

    def on_down(self, host: Host) -> None:
        _LOG.warning("a node of the shared store is down", node=str(host.endpoint))

    def on_up(self, host: Host) -> None:
        _LOG.info("a node of the shared store is up again", node=str(host.endpoint))

    def on_add(self, host: Host) -> None:
        """Do nothing: a node is new, or known for the first time."""

    def on_remove(self, host: Host) -> None:
        """Do nothing: a node was removed from the cluster."""
