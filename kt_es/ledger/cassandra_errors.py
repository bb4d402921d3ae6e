"""What the errors of the Cassandra driver mean: an outage, or something that an operator must change."""

from __future__ import annotations

import re
import ssl

from cassandra import (
    AuthenticationFailed,
    DriverException,
    InvalidRequest,
    OperationTimedOut,
    Timeout,
    Unauthorized,
    Unavailable,
    UnresolvableContactPoints,
)
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionBusy, ConnectionException
from cassandra.pool import NoConnectionsAvailable
from cassandra.protocol import ErrorMessage, OverloadedErrorMessage

from kt_es.errors import ConfigError, KtError, MisfitError, UnavailableError
from kt_es.ledger.cassandra_settings import CassandraSettings

DRIVER_ERRORS = (DriverException, ErrorMessage, NoHostAvailable, ConnectionException, OSError)


def translated(error: Exception, settings: CassandraSettings) -> KtError:
    """Return the error of kt-es that says what ``error`` of the driver means."""
    place, user, keyspace = settings.place, settings.user, settings.keyspace
    causes = _causes(error)
    who = f"the user {user!r}" if user else "a connection without a user"
    refusal = next((cause for cause in causes if isinstance(cause, AuthenticationFailed)), None)
    # A cluster that cannot read its own roles now says so with the same error.
    if refusal is not None and "Unable to perform" not in str(refusal):
        return ConfigError(
            f"the shared store at {place} refuses {who}: {_text(refusal)}; name the user in "
            "[store] shared and its password in password_file"
        )
    if isinstance(error, Unauthorized):
        return ConfigError(
            f"{who} may not do this in the shared store at {place}: {_text(error)}; grant it "
            f"the right on the keyspace {keyspace}"
        )
    if isinstance(error, InvalidRequest) and _names_nothing(str(error)):
        return ConfigError(
            f"the shared store at {place} has no tables in the keyspace {keyspace}: {_text(error)}; make "
            "them with kt store init"
        )
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return MisfitError(f"the TLS handshake with the shared store at {place} fails: {_text(causes[0])}")
    if isinstance(error, Unavailable):
        return UnavailableError(
            f"too few replicas in the shared store at {place} are alive: {error.required_replicas} are "
            f"needed, {error.alive_replicas} alive"
        )
    if isinstance(error, Timeout | OperationTimedOut):
        return UnavailableError(f"the shared store at {place} did not answer in time: {_text(error)}")
    if isinstance(error, UnresolvableContactPoints):
        return UnavailableError(f"no name of the shared store at {place} has an address")
    if isinstance(error, NoHostAvailable | ConnectionException | OSError):
        return UnavailableError(f"no node of the shared store at {place} answers: {_text(causes[0])}")
    return KtError(f"the shared store at {place} failed: {_text(error)}")


def _causes(error: Exception) -> list[Exception]:
    """Return the errors of the single nodes, or else ``error`` itself."""
    each = error.errors if isinstance(error, NoHostAvailable) else None
    return list(each.values()) if each and isinstance(each, dict) else [error]


def passes(error: Exception) -> bool:
    """Return whether the same statement may soon succeed: every statement may be executed again."""
    passing = Timeout, OperationTimedOut, OverloadedErrorMessage, NoConnectionsAvailable, ConnectionBusy
    return any(isinstance(cause, passing) for cause in _causes(error))


def _names_nothing(problem: str) -> bool:
    return any(part in problem.lower() for part in ("does not exist", "unconfigured table", "doesn't exist"))


def _text(error: Exception) -> str:
    """Return the message of an error in one line. Those of a node stand within other words."""
    if isinstance(error, NoHostAvailable):
        return "all are down"
    text = " ".join(str(error).split()) or type(error).__name__
    found = re.search(r'message="(.*)"', text)
    return found[1] if found else text
