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
    """The nodes that lately did not answer when another one did. Safe for threads."""

    def __init__(self) -> None:
        self._until: dict[Host, float] = {}

    def note(self, asked: Sequence[Host], answered: Host | None) -> None:
        """Note whom a statement was sent to, the first one first, and who answered it."""
        for node in asked:
            if node is answered:
                return
            self._until[node] = time.monotonic() + AVOIDED

    def __contains__(self, node: Host) -> bool:
        return self._until.get(node, 0.0) > time.monotonic()


class Order(TokenAwarePolicy):  # type: ignore[misc]
    """The nodes for the attempts of a statement: its replicas in a random order, the others, the silent ones.

    Without the random order each attempt would go to the same node first, even if that one hangs.

    The driver makes the order while it is read, and shuffles one list for all statements. So a statement that
    is sent again later would often go to its first node again. Here the whole order is made at once.
    """

    def __init__(self, datacenter: str | None, silent: Silent) -> None:
        """Use nodes of ``datacenter`` alone, None for that of the contact points."""
        super().__init__(DCAwareRoundRobinPolicy(datacenter or ""), shuffle_replicas=True)
        self._silent = silent

    def make_query_plan(self, working_keyspace: str | None = None, query: object = None) -> Iterator[Host]:
        with _SHUFFLING:
            nodes = list(super().make_query_plan(working_keyspace, query))
        return iter(sorted(nodes, key=self._silent.__contains__))


class Retries(RetryPolicy):  # type: ignore[misc]
    """What the driver does itself: a node that fails is replaced by the next one at once.

    Whatever needs a pause is left to ``CassandraSession``. A statement whose query was taken has its answer
    from another node, and is not sent again when the connection to the silent one ends.
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
        """A node is new, or known for the first time."""

    def on_remove(self, host: Host) -> None:
        """A node was removed from the cluster."""
