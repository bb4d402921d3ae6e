"""From a connection string to an event log, and the ``Connector`` that makes the clients of a process."""

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
    """Makes the clients of one process, and lets them leave a member together.

    A server that is being stopped waits for calls that are open, and subscriptions stay open. So when one
    client is refused and looks for the leader anew, the subscriptions of the others end, too: whoever
    reads them connects again. May be used from any thread.
    """

    def __init__(self, uri: str) -> None:
        """Raises ``ConfigError`` as ``connect`` does."""
        self._uri = normalized(uri)
        self._lock = threading.Lock()
        self._logs: weakref.WeakSet[EsdbLog] = weakref.WeakSet()

    def __call__(self) -> EsdbLog:
        """Another client, which its user closes. Raises as ``connect`` does."""
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
    """The log at a connection string such as ``esdb://127.0.0.1:2113?Tls=false`` (see ``uri``).

    ``left`` is told of each member that the client leaves because it was refused there: the client and the
    member's target. Raises ``ConfigError`` if the string is not one, ``UnavailableError`` if a cluster
    cannot be found.
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
