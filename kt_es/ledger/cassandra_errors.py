"""What the errors of the Cassandra driver mean: an outage, or something that an operator must change."""

from __future__ import annotations

import re
import ssl

from cassandra import (
    AuthenticationFailed,
    CoordinationFailure,
    DriverException,
    InvalidRequest,
    OperationTimedOut,
    Timeout,
    Unauthorized,
    Unavailable,
    UnresolvableContactPoints,
)
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionBusy, ConnectionException, ProtocolError
from cassandra.pool import NoConnectionsAvailable
from cassandra.protocol import ErrorMessage, OverloadedErrorMessage

from kt_es.errors import ConfigError, KtError, MisfitError, UnavailableError
from kt_es.ledger.cassandra_settings import PORT, CassandraSettings

DRIVER_ERRORS = (DriverException, ErrorMessage, NoHostAvailable, ConnectionException, OSError)
"""What the driver raises, besides errors of its caller."""

# If several nodes fail, the error of the first of these kinds is reported, because it says most.
_TELLING = (AuthenticationFailed, Unauthorized, InvalidRequest, ssl.SSLError, Unavailable, Timeout)
_NO_TLS = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")
"""How TLS calls an answer that is none of TLS."""
_NAMES_NOTHING = ("does not exist", "doesn't exist", "unconfigured table")


def tells(error: Exception) -> bool:
    """Return whether a node gave the reason of ``error``: it answered, or its certificate was refused."""
    return any(isinstance(cause, _TELLING) for cause in _causes(error))


def translated(error: Exception, settings: CassandraSettings, *, connecting: bool = False) -> KtError:
    """Return the error of kt-es for ``error`` of the driver.

    A TLS handshake that fails while a session is ``connecting`` is a wrong setting. Later it is an outage: a
    certificate of a node is wrong or has expired.
    """
    place, keyspace = settings.place, settings.keyspace
    user = f"the user {settings.user!r}" if settings.user else "a connection without a user"
    causes = _causes(error)
    cause = next((cause for cause in causes if isinstance(cause, _TELLING)), causes[0])
    text = _text(cause)
    # A cluster that cannot read its own roles now says so with the same error.
    if isinstance(cause, AuthenticationFailed) and "Unable to perform" not in text:
        return ConfigError(
            f"the shared store at {place} refuses {user}: {text}; name the user in [store] shared and its "
            "password in password_file"
        )
    if isinstance(cause, Unauthorized):
        return ConfigError(
            f"{user} may not do this in the shared store at {place}: {text}; grant it the right on the "
            f"keyspace {keyspace}"
        )
    if isinstance(cause, InvalidRequest) and any(words in text.lower() for words in _NAMES_NOTHING):
        return ConfigError(
            f"the shared store at {place} has no tables in the keyspace {keyspace}: {text}; make them with "
            "kt store init"
        )
    if all(_is_foreign(cause) for cause in causes):
        return _misfit(
            f"what answers at {place} is not Cassandra: name the nodes of the cluster and their port for "
            f"clients (native_transport_port, {PORT} by default) in [store] shared",
            connecting,
        )
    if any(words in text for words in _NO_TLS):
        return _misfit(
            f"the node of the shared store at {place} speaks no TLS: leave out tls_ca in [store], or name "
            "the port at which the nodes speak TLS",
            connecting,
        )
    if isinstance(cause, ssl.SSLError) or "[SSL:" in text:
        problem = f"the TLS handshake with the shared store at {place} fails: {text}"
        if not connecting:
            return MisfitError(problem)
        return ConfigError(
            f"{problem}; name the certificates that issue those of the nodes in [store] tls_ca, and what the "
            "nodes ask for in tls_cert and tls_key"
        )
    if isinstance(cause, Unavailable):
        return UnavailableError(
            f"too few replicas in the shared store at {place} are alive: {cause.required_replicas} are "
            f"needed, {cause.alive_replicas} alive"
        )
    if isinstance(cause, Timeout | OperationTimedOut):
        return UnavailableError(f"the shared store at {place} did not answer in time: {text}")
    if isinstance(cause, UnresolvableContactPoints):
        return UnavailableError(f"no name of the shared store at {place} has an address")
    if isinstance(error, NoHostAvailable | ConnectionException | OSError):
        return UnavailableError(f"no node of the shared store at {place} answers: {text}")
    if isinstance(error, OverloadedErrorMessage | CoordinationFailure | AuthenticationFailed):
        return UnavailableError(f"the shared store at {place} cannot do this now: {text}")
    return KtError(f"the shared store at {place} failed: {text}")


def _misfit(problem: str, connecting: bool) -> KtError:
    return ConfigError(problem) if connecting else MisfitError(problem)


def _is_foreign(error: Exception) -> bool:
    """Return whether the answer to the first message of a connection has no version of the protocol."""
    return isinstance(error, ProtocolError) and "does not support protocol version" in str(error)


def _causes(error: Exception) -> list[Exception]:
    """Return the errors of the single nodes, or ``error`` itself if it has none."""
    each = error.errors if isinstance(error, NoHostAvailable) else None
    return list(each.values()) if each and isinstance(each, dict) else [error]


def passes(error: Exception) -> bool:
    """Return whether the same statement may soon succeed: every statement may be executed again."""
    passing = Timeout, OperationTimedOut, OverloadedErrorMessage, NoConnectionsAvailable, ConnectionBusy
    return any(isinstance(cause, passing) for cause in _causes(error))


def _text(error: Exception) -> str:
    """Return the message of an error in one line, and of an error of a node only the node's own words."""
    if isinstance(error, NoHostAvailable):
        return "all are down"
    text = " ".join(str(error).split()) or type(error).__name__
    if found := re.search(r'message="(.*)"', text):
        return found[1]
    if found := re.fullmatch(r"errors=(.*), last_host=.*", text):
        return found[1]
    # The address stands in front of the text, and the number says the same as the words.
    found = re.fullmatch(r"\[Errno \d+\] (?:Tried connecting to .*\. Last error: )?(.+)", text)
    return text if found is None else found[1][0].lower() + found[1][1:]
