"""What is said of the driver's errors, and which of them are tried again. No node is needed."""

from __future__ import annotations

import ssl
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from kt_es.errors import ConfigError, KtError, MisfitError, UnavailableError
from kt_es.ledger.cassandra_settings import CassandraSettings

pytest.importorskip("cassandra", reason="the extra shared is not installed")

from cassandra import (
    AuthenticationFailed,
    DriverException,
    InvalidRequest,
    OperationTimedOut,
    ReadFailure,
    Unauthorized,
    Unavailable,
    WriteTimeout,
    WriteType,
)
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionShutdown, DefaultEndPoint, ProtocolError
from cassandra.policies import SimpleConvictionPolicy
from cassandra.pool import Host
from cassandra.protocol import OverloadedErrorMessage, ServerError, SyntaxException

from kt_es.ledger.cassandra_errors import passes, translated
from kt_es.ledger.cassandra_policies import AVOIDED, Order, Retries, Silent
from kt_es.ledger.cassandra_session import PATIENCE, CassandraSession, _taken

if TYPE_CHECKING:
    from collections.abc import Callable

SETTINGS = CassandraSettings(("db1", "db2"), "kt", user="signer", password="s3cret")
PLACE = "db1:9042, db2:9042"


def no_host(**errors: Exception) -> Exception:
    error: Exception = NoHostAvailable("Unable to complete the operation against any hosts", errors)
    return error


def foreign() -> Exception:
    error: Exception = ProtocolError("This version of the driver does not support protocol version 0")
    return error


REFUSED = OSError(111, "Tried connecting to [('127.0.0.1', 9042)]. Last error: Connection refused")
NO_TLS = OSError(1, "Tried connecting to [('::1', 1)]. Last error: [SSL: WRONG_VERSION_NUMBER] wrong version")


def overloaded() -> Exception:
    error: Exception = OverloadedErrorMessage(code=0x1001, message="too many requests", info=None)
    return error


def write_timeout() -> Exception:
    error: Exception = WriteTimeout("late", write_type=WriteType.SIMPLE)
    return error


@pytest.mark.parametrize(
    ("error", "kind", "said", "is_passing"),
    [
        (no_host(), UnavailableError, "no node of the shared store at {} answers: all are down", False),
        (no_host(db1=REFUSED), UnavailableError, "the shared store at {} answers: connection refused", False),
        (
            no_host(db1=OperationTimedOut("late", "db1")),
            UnavailableError,
            "the shared store at {} did not answer in time: late",
            True,
        ),
        (ConnectionShutdown("closed"), UnavailableError, "no node of the shared store at {} answers", False),
        (no_host(db1=ServerError(0, "bad luck", None)), UnavailableError, "answers: bad luck", False),
        (
            Unavailable("", required_replicas=2, alive_replicas=1),
            UnavailableError,
            "too few replicas in the shared store at {} are alive: 2 are needed, 1 alive",
            False,
        ),
        (write_timeout(), UnavailableError, "the shared store at {} did not answer in time: late", True),
        (OperationTimedOut(), UnavailableError, "the shared store at {} did not answer in time", True),
        (no_host(db1=OSError(), db2=write_timeout()), UnavailableError, "did not answer in time", True),
        (
            overloaded(),
            UnavailableError,
            "the shared store at {} cannot do this now: too many requests",
            True,
        ),
        (ReadFailure("broken"), UnavailableError, "the shared store at {} cannot do this now: broken", False),
        (
            no_host(db1=OSError(), db2=AuthenticationFailed("wrong")),
            ConfigError,
            "the shared store at {} refuses the user 'signer': wrong; name the user",
            False,
        ),
        (
            no_host(db1=AuthenticationFailed("Unable to perform authentication: no replica")),
            UnavailableError,
            "answers: Unable to perform authentication: no replica",
            False,
        ),
        (Unauthorized("no MODIFY"), ConfigError, "the user 'signer' may not do this in", False),
        (InvalidRequest("keyspace kt does not exist"), ConfigError, "make them with kt store init", False),
        (InvalidRequest("table pages doesn't exist"), ConfigError, "make them with kt store init", False),
        (InvalidRequest("Batch too large"), KtError, "the shared store at {} failed: Batch too large", False),
        (SyntaxException(0, "line 1", None), KtError, "the shared store at {} failed: line 1", False),
        (DriverException("odd"), KtError, "the shared store at {} failed: odd", False),
        (no_host(db1=ssl.SSLError(1, "bad certificate")), MisfitError, "the TLS handshake with", False),
        (no_host(db1=OSError(1, "[SSL: VERIFY_FAILED]")), MisfitError, "the TLS handshake with", False),
    ],
)
def test_an_error_names_what_failed(
    error: Exception, kind: type[KtError], said: str, is_passing: bool
) -> None:
    result = translated(error, SETTINGS)
    assert type(result) is kind
    assert said.format(PLACE) in str(result)
    assert "s3cret" not in str(result)
    assert passes(error) is is_passing


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (no_host(db1=foreign(), db2=foreign()), "what answers at {} is not Cassandra: name the nodes"),
        (no_host(db1=NO_TLS), "the node of the shared store at {} speaks no TLS: leave out tls_ca in"),
        (
            no_host(db1=ssl.SSLError(1, "[SSL: RECORD_LAYER_FAILURE]")),
            "the node of the shared store at {} spe",
        ),
    ],
)
def test_what_does_not_fit_the_settings_ends_a_start_and_is_an_outage_later(
    error: Exception, said: str
) -> None:
    for connecting, kind in ((True, ConfigError), (False, MisfitError)):
        result = translated(error, SETTINGS, connecting=connecting)
        assert type(result) is kind
        assert str(result).startswith(said.format(PLACE))


def test_a_foreign_service_beside_a_node_that_is_down_is_an_outage() -> None:
    error = translated(no_host(db1=foreign(), db2=REFUSED), SETTINGS, connecting=True)
    assert type(error) is UnavailableError


def test_a_handshake_that_fails_at_the_start_names_the_setting() -> None:
    error = translated(no_host(db1=ssl.SSLError(1, "unknown authority")), SETTINGS, connecting=True)
    assert type(error) is ConfigError
    assert "unknown authority; name the certificates that issue those of the nodes in [store] tls_ca" in str(
        error
    )


def test_without_a_user_the_refusal_names_it() -> None:
    error = translated(AuthenticationFailed("required"), CassandraSettings(("db1",), "kt"))
    assert "refuses a connection without a user: required" in str(error)


class Future:
    """A future of the driver that is done."""

    def __init__(self, outcome: Exception | str) -> None:
        self._outcome = outcome
        self.attempted_hosts = ["first", "second", "third"]
        self.coordinator_host = "second"

    def result(self) -> SimpleNamespace:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return SimpleNamespace(current_rows=[self._outcome], paging_state=None)


def test_what_another_node_has_answered_is_not_sent_again() -> None:
    """The connection to a silent node ends after the second node has answered."""
    future: Any = Future("done")
    future.query = "statement"
    ends: Any = ConnectionShutdown("closed")
    assert Retries().on_request_error(future.query, None, error=ends, retry_num=0) == (
        Retries.RETRY_NEXT_HOST,
        None,
    )
    _taken(future)
    assert Retries().on_request_error(future.query, None, error=ends, retry_num=0) == (
        Retries.RETHROW,
        None,
    )


def test_a_later_attempt_goes_to_another_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver keeps one list of replicas, which it shuffles for each statement."""
    replicas = [Host(DefaultEndPoint(f"127.0.0.{number}"), SimpleConvictionPolicy) for number in (1, 2, 3)]
    for replica in replicas:
        replica.set_location_info("dc1", "rack1")
        replica.set_up()
    nodes, silent = tuple(replicas), Silent()
    order, metadata = Order("dc1", silent), SimpleNamespace(get_replicas=lambda *_: replicas)
    order.populate(SimpleNamespace(metadata=metadata, endpoints_resolved=[]), replicas)
    statement = SimpleNamespace(keyspace="kt", routing_key=b"key")
    plans = [order.make_query_plan("kt", statement) for _ in range(50)]
    tried: list[list[Host]] = [[] for _ in plans]
    for _ in replicas:
        for plan, asked in zip(plans, tried, strict=True):
            asked.append(next(plan))
    assert all(len(set(asked)) == 3 for asked in tried)
    assert len({asked[0] for asked in tried}) > 1
    # Who has not answered is asked last for some time.
    silent.note([nodes[0], nodes[1]], nodes[1])
    for _ in range(20):
        *_, last = order.make_query_plan("kt", statement)
        assert last is nodes[0]
    now = time.monotonic()
    monkeypatch.setattr("kt_es.ledger.cassandra_policies.time.monotonic", lambda: now + AVOIDED + 1)
    assert nodes[0] not in silent


class Driver:
    """A session of the driver whose statements have these outcomes, one after another."""

    def __init__(self, *outcomes: Exception | str) -> None:
        self.outcomes = list(outcomes)

    def execute_async(self, *_: object, **__: object) -> Future:
        return Future(self.outcomes.pop(0))


@pytest.fixture
def session_over(monkeypatch: pytest.MonkeyPatch) -> Callable[[Driver], Any]:
    """Make a session over a scripted driver. Its clock advances by each pause, which takes no time."""
    now = [0.0]

    class Closed:
        def wait(self, seconds: float) -> bool:
            now[0] += seconds
            return False

        def is_set(self) -> bool:
            return False

    monkeypatch.setattr("kt_es.ledger.cassandra_session.time", SimpleNamespace(monotonic=lambda: now[0]))

    def make(driver: Driver) -> Any:
        session = object.__new__(CassandraSession)
        session.settings, session._session, session._closed = SETTINGS, driver, Closed()  # type: ignore[assignment]
        session._patience = PATIENCE
        session._silent = Silent()
        return session

    return make


def test_a_passing_failure_is_tried_again(session_over: Callable[[Driver], Any]) -> None:
    driver = Driver(write_timeout(), overloaded(), OperationTimedOut(), "done")
    session = session_over(driver)
    assert session.execute("statement") == (["done"], None)
    assert ["first" in session._silent, "second" in session._silent] == [True, False]


def test_no_attempt_begins_after_the_deadline(session_over: Callable[[Driver], Any]) -> None:
    driver = Driver(*(write_timeout() for _ in range(1000)))
    with pytest.raises(UnavailableError, match="did not answer in time"):
        session_over(driver).execute("statement")
    assert 5 < 1000 - len(driver.outcomes) < 50


def test_another_failure_is_raised_at_once(session_over: Callable[[Driver], Any]) -> None:
    driver = Driver(Unavailable("", required_replicas=2, alive_replicas=1), "done")
    with pytest.raises(UnavailableError, match="too few replicas"):
        session_over(driver).execute("statement")
    assert driver.outcomes == ["done"]
