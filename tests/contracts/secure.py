"""A server with TLS and users, and clients that log in to it.

It is the embedded node with a certificate of its own, or the one at ``KT_TEST_ESDB_SECURE``
("host:port"), whose authority's certificate is in the file ``KT_TEST_ESDB_CA``. That one has to have,
besides the users that such servers begin with (admin and ops, password changeit), alice (pw-alice) and
bob (pw-bob), both in the group writers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from kt_es.eventstore.driver import (
    DENIALS,
    UNAUTHENTICATED,
    EventStoreDBClient,
    EventStoreDBClientException,
    GrpcError,
    name_of,
)
from kt_es.node.access.users import add
from kt_es.node.server import NodeConfig
from tests.contracts.certificates import certify
from tests.contracts.nodes import ServedNode

USERS = {
    "admin": ("changeit", ["$admins"]),
    "ops": ("changeit", ["$ops"]),
    "alice": ("pw-alice", ["writers"]),
    "bob": ("pw-bob", ["writers"]),
}
ANYONE = "anonymous"


@dataclass(slots=True)
class Secure:
    """Clients of one server by user; each is made when it is first asked for."""

    target: str
    authority: Path
    _stack: ExitStack
    _clients: dict[str, EventStoreDBClient] = field(default_factory=dict)

    def __getitem__(self, name: str) -> EventStoreDBClient:
        """The client of a user, or of nobody (``ANYONE``)."""
        if name not in self._clients:
            password = USERS["alice" if name == ANYONE else name][0]
            self._clients[name] = self.client("alice" if name == ANYONE else name, password)
            if name == ANYONE:
                # The client insists on credentials in its URI.
                self._clients[name]._call_credentials = None
        return self._clients[name]

    def uri(self, name: str, password: str) -> str:
        return f"esdb://{name}:{password}@{self.target}?Tls=true&TlsCaFile={self.authority}"

    def client(self, name: str, password: str) -> EventStoreDBClient:
        return self._stack.enter_context(EventStoreDBClient(self.uri(name, password)))


@contextmanager
def connected(target: str, authority: Path) -> Iterator[Secure]:
    with ExitStack() as stack:
        yield Secure(target, authority, stack)


@contextmanager
def secure_node(folder: Path, **options: Any) -> Iterator[Secure]:
    """The embedded node with TLS and the users above; its data are in ``folder / "data"``."""
    made = certify(folder)
    for name, (password, groups) in USERS.items():
        add(folder / "data", name, password, groups)
    config = NodeConfig(folder / "data", port=0, tls_cert=made.certificate, tls_key=made.key, **options)
    with ServedNode(config) as node, connected(node.address, made.authority) as secure:
        yield secure


@contextmanager
def secure_server(folder: Path) -> Iterator[Secure]:
    """The server that the contracts of access are asked of."""
    given = os.environ.get("KT_TEST_ESDB_SECURE")
    if given:
        with connected(given, Path(os.environ["KT_TEST_ESDB_CA"])) as secure:
            yield secure
        return
    with secure_node(folder) as secure:
        yield secure


def answer(call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """ "" if a call succeeds, else the gRPC status, or the client's exception where it has one.

    That access is denied has one name, although calls of one library raise it in different ways.
    """
    try:
        result = call(*args, **kwargs)
        if hasattr(result, "stop"):
            # A subscription: the first answer tells.
            with result:
                next(iter(result), None)
        elif hasattr(result, "__next__"):
            list(result)
    except (*DENIALS, *UNAUTHENTICATED) as error:
        return "PERMISSION_DENIED" if isinstance(error, DENIALS) else "UNAUTHENTICATED"
    except GrpcError as error:
        cause = error.args[0] if error.args else None
        code = cause.code() if isinstance(cause, grpc.RpcError) and hasattr(cause, "code") else None
        return code.name if code is not None else name_of(error)
    except EventStoreDBClientException as error:
        return name_of(error)
    return ""
