"""Connections to a Cassandra cluster: the driver with our settings, attempts and errors.

The driver keeps a connection to every node and learns by itself which nodes are up. A node that dies in the
middle of a statement is replaced by the next one. A node that is silent is not waited for: statements that
read or write rows may be executed twice, so a second node gets them, too. A session stays usable while all
nodes are away: each call then raises ``UnavailableError``, and the first one after their return succeeds.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from cassandra import ConsistencyLevel, ProtocolVersion
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import (
    EXEC_PROFILE_DEFAULT,
    Cluster,
    ExecutionProfile,
    NoHostAvailable,
    ResponseFuture,
)
from cassandra.policies import (
    ConstantReconnectionPolicy,
    ConstantSpeculativeExecutionPolicy,
)
from cassandra.query import BoundStatement, PreparedStatement, Statement, tuple_factory

from kt_es.errors import ConfigError
from kt_es.ledger.cassandra_errors import DRIVER_ERRORS, passes, tells, translated
from kt_es.ledger.cassandra_policies import NodeLog, Order, Retries, Silent
from kt_es.ledger.cassandra_settings import CassandraSettings
from kt_es.ledger.cassandra_tls import check_plain, tls_context
from kt_es.process.outage import Backoff

Row = tuple[Any, ...]

CONNECT = 5.0
"""Seconds for the connection to one node."""
REPEAT = 1.0
"""Seconds without an answer after which a second node gets the statement, too. The first answer counts."""
REQUEST = 7.0
"""Seconds for one attempt of a statement, including the second node. This is more than ``REPEAT`` and the 5 s
for which a node itself waits for other replicas."""
PATIENCE = 20.0
"""Seconds after the first failed attempt of a statement until no further attempt begins. This is for writers:
an epoch that is given up begins anew."""
READER_PATIENCE = 2.0
"""The same where somebody waits for an answer."""
RECONNECT = 1.0
"""Seconds between two attempts to reach a node that is down."""
HEARTBEAT = 5.0
"""Seconds of silence after which a connection is examined, and then until it is given up."""
IN_FLIGHT = 32
"""Statements of one call that wait for their answers."""


class Answer(NamedTuple):
    """Rows, and where to continue if there are more."""

    rows: list[Row]
    page: bytes | None


_ONE = "one replica"
_QUORUM = EXEC_PROFILE_DEFAULT


class CassandraSession:
    """An open session. Safe for threads."""

    def __init__(self, settings: CassandraSettings, patience: float = PATIENCE) -> None:
        """Connect. If no contact point answers, the caller may try again.

        Args:
            patience: See ``PATIENCE``.

        Raises:
            UnavailableError: No contact point answers.
            ConfigError: The cluster refuses the user, or has no such datacenter; a TLS file is unusable, does
                not fit the nodes, or is missing.
        """
        self.settings = settings
        self._patience = patience
        self._closed = threading.Event()
        self._prepared: dict[str, PreparedStatement] = {}
        self._silent = Silent()
        # Every failure is raised or retried here, and ``NodeLog`` logs which nodes go and come. The driver's
        # own lines repeat that for each connection and attempt.
        logging.getLogger("cassandra").setLevel(logging.CRITICAL)
        one, quorum = (
            ExecutionProfile(
                load_balancing_policy=Order(settings.datacenter, self._silent),
                retry_policy=Retries(),
                consistency_level=level,
                request_timeout=REQUEST,
                row_factory=tuple_factory,
                speculative_execution_policy=ConstantSpeculativeExecutionPolicy(REPEAT, max_attempts=1),
            )
            for level in (ConsistencyLevel.LOCAL_ONE, ConsistencyLevel.LOCAL_QUORUM)
        )
        authentication = PlainTextAuthProvider(settings.user, settings.password) if settings.user else None
        context = tls_context(settings)
        with self._translated(connecting=True):
            self._cluster = Cluster(
                list(settings.hosts),
                settings.port,
                # Version 5 adds a checksum of each frame, which the driver computes in Python.
                protocol_version=ProtocolVersion.V4,
                auth_provider=authentication,
                ssl_context=context,
                execution_profiles={_ONE: one, _QUORUM: quorum},
                compression=False,
                reconnection_policy=ConstantReconnectionPolicy(RECONNECT, max_attempts=None),
                connect_timeout=CONNECT,
                control_connection_timeout=CONNECT,
                idle_heartbeat_interval=HEARTBEAT,
                idle_heartbeat_timeout=HEARTBEAT,
                schema_metadata_enabled=False,
                monitor_reporting_enabled=False,
                application_name="kt-es",
            )
            self._cluster.register_listener(NodeLog())
            try:
                self._session = self._cluster.connect()
                # This is all that the driver needs of the schema: which nodes hold which keys of the
                # keyspace.
                self._cluster.refresh_keyspace_metadata(settings.keyspace)
            except BaseException as error:
                self._cluster.shutdown()
                if isinstance(error, NoHostAvailable):
                    self._check_datacenter()
                    if not tells(error):
                        check_plain(settings)
                raise
        # Each statement sets the times of its rows itself.
        self._session.use_client_timestamp = False

    def _check_datacenter(self) -> None:
        """Raise ``ConfigError`` if nodes answered, but none is in the datacenter of the settings."""
        wanted, names = self.settings.datacenter, self.datacenters()
        if wanted and names and wanted not in names:
            raise ConfigError(
                f"the shared store at {self.settings.place} has no datacenter {wanted!r}, but "
                f"{', '.join(names)}: name one of these in [store] shared"
            )

    def datacenters(self) -> dict[str, int]:
        """Return the number of nodes of each datacenter that is known."""
        nodes = [node.datacenter for node in self._cluster.metadata.all_hosts() if node.datacenter]
        return {name: nodes.count(name) for name in sorted(set(nodes))}

    @property
    def datacenter(self) -> str:
        """The datacenter whose nodes are used."""
        host = self._cluster.get_control_connection_host()
        return self.settings.datacenter or (host.datacenter if host else next(iter(self.datacenters())))

    def prepare(self, query: str) -> PreparedStatement:
        """Return the prepared statement of ``query``.

        Raises:
            UnavailableError: No node answers.
            ConfigError: The keyspace or the table does not exist.
        """
        found = self._prepared.get(query)
        if found is None:
            with self._translated():
                found = self._session.prepare(query)
            found.is_idempotent = True
            self._prepared[query] = found
        return found

    def bound(self, query: str, values: Sequence[bytes]) -> BoundStatement:
        """Return ``query`` with ``values``, which are encoded: the driver would examine each of them."""
        statement = BoundStatement(self.prepare(query))
        statement.values = values
        return statement

    def execute(self, statement: Statement | str, *, one: bool = False, page: bytes | None = None) -> Answer:
        """Execute one statement.

        Args:
            one: The answer of one replica is sufficient; otherwise a majority of those in the datacenter.
            page: Where to continue: ``Answer.page`` of the answer before.
        """
        return self._answer(statement, self._send(statement, one, page), one, page)

    def execute_all(self, statements: Iterable[Statement], *, one: bool = False) -> Iterator[list[Row]]:
        """Execute many statements at the same time, and yield the rows of each in their order.

        If one fails, those that were sent before may still be executed later.
        """
        waiting: deque[tuple[Statement, ResponseFuture]] = deque()
        for statement in statements:
            if len(waiting) == IN_FLIGHT:
                yield self._answer(*waiting.popleft(), one).rows
            waiting.append((statement, self._send(statement, one)))
        while waiting:
            yield self._answer(*waiting.popleft(), one).rows

    def _send(self, statement: Statement | str, one: bool, page: bytes | None = None) -> ResponseFuture:
        with self._translated():
            return self._session.execute_async(
                statement, execution_profile=_ONE if one else _QUORUM, paging_state=page
            )

    def _answer(
        self, statement: Statement | str, future: ResponseFuture, one: bool, page: bytes | None = None
    ) -> Answer:
        """Return the answer to ``future``; after a passing failure, that to further attempts."""
        backoff = Backoff(0.1)
        deadline: float | None = None
        while True:
            with self._translated():
                try:
                    return _taken(future)
                except DRIVER_ERRORS as error:
                    now = time.monotonic()
                    deadline = deadline or now + self._patience
                    if not passes(error) or now > deadline or self._closed.wait(backoff.pause()):
                        raise
                finally:
                    self._silent.note(future.attempted_hosts, future.coordinator_host)
            future = self._send(statement, one, page)

    def close(self) -> None:
        """End all connections and threads. A second call does nothing."""
        self._closed.set()
        self._cluster.shutdown()

    @contextmanager
    def _translated(self, *, connecting: bool = False) -> Iterator[None]:
        try:
            yield
        except DRIVER_ERRORS as error:
            if self._closed.is_set():
                raise ValueError("the shared store is closed") from None
            raise translated(error, self.settings, connecting=connecting) from None


def _taken(future: ResponseFuture) -> Answer:
    """Wait for the answer to ``future`` and take it away.

    The future and its timer refer to each other. Without the timer, the future is freed at once, or when no
    second answer is expected any more. With it, the future and the rows that were written and read would live
    on until the garbage collector finds them. ``Retries`` knows by the query what was taken.
    """
    try:
        result = future.result()
    finally:
        future.query = future._timer = None
    taken = result.current_rows
    rows = taken.copy()
    taken.clear()
    return Answer(rows, result.paging_state)
