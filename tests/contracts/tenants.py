"""A server with other tenants: a node with TLS, users of other groups, and their default rights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kt_es.errors import AccessDeniedError
from kt_es.eventstore.connecting import connect
from kt_es.eventstore.esdb import EsdbLog
from kt_es.eventstore.rights import DELETED
from kt_es.eventstore.streams import ANY, EventLog, StreamNames, content_event
from kt_es.node.access.users import add
from kt_es.node.server import NodeConfig
from tests.contracts.certificates import certify
from tests.contracts.nodes import ServedNode

NAMES = StreamNames("people")
GROUPS = {
    "root": ["$admins"],
    "signer": ["$ops"],
    "fe1": ["frontend"],
    "fe2": ["frontend"],
    "monitor": [],
    "eve": ["tenant"],
}
EVERYTHING = dict.fromkeys(("$r", "$w", "$d", "$mr", "$mw"), "$all")
TENANT = {right: ["tenant"] for right in EVERYTHING}
BOTH = {right: ["tenant", "frontend"] for right in EVERYTHING}


@dataclass
class Server:
    """Clients of the node by user; closed at the end."""

    uris: dict[str, str]
    _logs: list[EsdbLog] = field(default_factory=list)

    def log(self, name: str) -> EsdbLog:
        self._logs.append(connect(self.uris[name]))
        return self._logs[-1]

    def close(self) -> None:
        for log in self._logs:
            log.close()

    def set_defaults(self, acl: Mapping[str, object]) -> bytes:
        data = json.dumps({"$userStreamAcl": acl}).encode()
        self.log("root").append("$settings", ANY, [content_event("$settings", "$settings", data)])
        return data

    def set_acl(self, stream: str, acl: Mapping[str, object]) -> None:
        root = self.log("root")
        held = root.metadata(stream)
        root.set_metadata(stream, {**held.values, "$acl": acl}, held.revision)

    def delete(self, stream: str) -> None:
        """A soft deletion, which drops the ACL: nothing but ``$tb`` is left of the metadata."""
        root = self.log("root")
        root._client.delete_stream(stream, current_version=root.last_revision(stream))
        assert root.metadata(stream).values == {"$tb": DELETED}


@contextmanager
def tenants_server(folder: Path) -> Iterator[Server]:
    made = certify(folder)
    for name, groups in GROUPS.items():
        add(folder / "node", name, "pw", groups)
    config = NodeConfig(folder / "node", port=0, tls_cert=made.certificate, tls_key=made.key)
    with ServedNode(config) as node:
        uri = f"{node.address}?Tls=true&TlsCaFile={made.authority}"
        server = Server({name: f"esdb://{name}:pw@{uri}" for name in GROUPS})
        yield server
        server.close()


def denials(log: EventLog, stream: str) -> set[str]:
    """The rights to a stream that ``log``'s user does not have."""
    calls: dict[str, Callable[[], object]] = {
        "$r": lambda: list(log.read(stream, 0, 1)),
        "$w": lambda: log.append(stream, ANY, [content_event(stream, "T", b"by a stranger")]),
        "$mr": lambda: log.metadata(stream),
        "$mw": lambda: log.set_metadata(stream, {}, log.metadata(stream).revision),
    }
    return {right for right, call in calls.items() if is_denied(call)}


def is_denied(call: Callable[[], object]) -> bool:
    try:
        call()
    except AccessDeniedError:
        return True
    return False


ALL_RIGHTS = {"$r", "$w", "$mr", "$mw"}
