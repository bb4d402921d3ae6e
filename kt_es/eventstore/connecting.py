"""Connecting to an event log: ``connect`` makes one client, and ``Connector`` makes those of one process."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

from kt_es.errors import ConfigError
from kt_es.eventstore import driver
from kt_es.eventstore.esdb import EsdbLog
from kt_es.eventstore.esdb_client import EsdbClient
from kt_es.eventstore.translation import sentence, unreached
from kt_es.eventstore.uri import is_plain, normalized
from kt_es.process.redaction import without_password


class Connector:
    """Makes the clients of one process and disconnects all of them from a member that refuses one.

    A server that is stopping waits until open calls end, but subscriptions do not end by themselves. So when
    one client is refused and searches for the leader again, the connector ends the subscriptions of the other
    clients at this member. Their readers then connect again. Any thread may use a connector.
    """

    def __init__(self, uri: str) -> None:
        """Check the connection string. Raises ``ConfigError`` as ``connect`` does."""
        self._uri = normalized(uri)
        self._lock = threading.Lock()
        self._logs: weakref.WeakSet[EsdbLog] = weakref.WeakSet()

    def __call__(self) -> EsdbLog:
        """Return a new client, which the caller must close. Raises as ``connect`` does."""
        log = connect(self._uri, self._left)
        with self._lock:
            self._logs.add(log)
        return log

    def _left(self, client: EsdbClient, target: str) -> None:
        with self._lock:
            others = [log for log in self._logs if log.is_connected_to(target) and not log.uses(client)]
        for log in others:
            log.end_subscriptions()


def connect(uri: str, left: Callable[[EsdbClient, str], None] | None = None) -> EsdbLog:
    """Return the event log at a connection string such as ``esdb://127.0.0.1:2113?Tls=false`` (see ``uri``).

    Args:
        left: called with the client and the target of a member when the client leaves the member because it
            refused a call.

    Raises:
        ConfigError: ``uri`` is not a valid connection string.
        UnavailableError: the log cannot be reached, or no leader of the cluster can be found.
    """
    uri = normalized(uri)
    try:
        client = EsdbClient(uri)
        client.left = left
    except (ValueError, OSError) as error:
        problem = without_password(str(error))
        if "password are required" in problem:
            problem = (
                "with TLS it needs user and password; give esdb://USER:PASSWORD@HOST:PORT?... with --log or "
                "the variable KT_LOG"
            )
        raise ConfigError(f"connection string: {problem}") from None
    except driver.EventStoreDBClientException as error:
        cause = sentence(error)
        raise unreached(f"the event log cannot be reached: {cause}", cause, is_plain=is_plain(uri)) from None
    return EsdbLog(client)
