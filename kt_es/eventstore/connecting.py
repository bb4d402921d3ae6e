"""Connection strings of the event log, and connecting with them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from urllib.parse import parse_qsl

from kt_es.errors import ConfigError
from kt_es.eventstore import driver
from kt_es.eventstore.esdb import EsdbLog
from kt_es.eventstore.esdb_client import EsdbClient
from kt_es.eventstore.subscriptions import sentence, unreached
from kt_es.process.log_filters import keep_secret, without_password

_SCHEMES = ("esdb", "kurrentdb", "kdb")
_DISCOVER = "+discover"

_UNUSABLE = (
    "connection string: the user or the password has one of the characters @ / ? # which cannot stand there; "
    "write them as %40 %2F %3F %23, and % as %25"
)

OPTIONS = (
    "Tls",
    "ConnectionName",
    "MaxDiscoverAttempts",
    "DiscoveryInterval",
    "GossipTimeout",
    "NodePreference",
    "TlsVerifyCert",
    "DefaultDeadline",
    "KeepAliveInterval",
    "KeepAliveTimeout",
    "TlsCaFile",
    "UserCertFile",
    "UserKeyFile",
)


def check_uri(uri: str) -> None:
    """Raise ``ConfigError`` as ``normalized`` does. Call this before ``uri`` is stored anywhere."""
    normalized(uri)


def normalized(uri: str) -> str:
    """Return ``uri`` with a scheme that both client libraries know: ``esdb`` or ``esdb+discover``.

    Raises:
        ConfigError: The scheme is unknown, the user or password has a character that must be escaped, or an
            option is unknown, empty or given twice. The error never contains ``uri``, which may contain a
            password.
    """
    keep_secret(uri)
    scheme, mark, rest = uri.strip().partition("://")
    scheme = scheme.lower()
    if not mark or scheme.removesuffix(_DISCOVER) not in _SCHEMES:
        raise ConfigError(
            "connection string: it begins with none of esdb://, esdb+discover://, kurrentdb://, "
            "kurrentdb+discover://, kdb:// and kdb+discover://"
        )
    authority, _, query = rest.partition("?")
    if authority.count("@") > 1 or "#" in rest or "/" in authority.rpartition("@")[0]:
        raise ConfigError(_UNUSABLE)
    _check_options(query)
    return f"esdb{_DISCOVER if scheme.endswith(_DISCOVER) else ''}://{rest}"


def is_plain(uri: str) -> bool:
    """Return whether the connection string ``uri`` asks for a connection without TLS."""
    options = parse_qsl(uri.partition("?")[2])
    return any(name.lower() == "tls" and value.lower() == "false" for name, value in options)


def _check_options(query: str) -> None:
    known = {name.lower(): name for name in OPTIONS}
    seen = set()
    for name, value in parse_qsl(query, keep_blank_values=True):
        spelled = known.get(name.lower())
        if spelled is None and "@" in name:
            # The name may be part of a password, so the error must not contain it.
            raise ConfigError(_UNUSABLE)
        if spelled is None:
            raise ConfigError(
                f"connection string: the option {name!r} is unknown; known: {', '.join(OPTIONS)}"
            )
        if not value:
            raise ConfigError(f"connection string: the option {spelled} has no value; write {spelled}=...")
        if spelled in seen:
            raise ConfigError(f"connection string: the option {spelled} is given twice")
        seen.add(spelled)


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
        left: Called with the client and the target of a member when the client leaves the member because it
            refused a call.

    Raises:
        ConfigError: ``uri`` is not a valid connection string.
        UnavailableError: The log cannot be reached, or no leader of the cluster can be found.
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
