"""TLS handshakes that a node's clients begin and do not finish."""

from __future__ import annotations

import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kt_es.eventstore.connecting import connect
from kt_es.eventstore.streams import ANY, content_event
from kt_es.node.access.users import add
from kt_es.node.server import NodeConfig
from tests.contracts.certificates import certify, trusting
from tests.contracts.nodes import ServedNode

CLIENTS = 6
CONNECTIONS = 300  # of each client; the node used to end after some 30 to 500 of all


def test_handshakes_that_end_in_the_middle_do_not_end_the_node(tmp_path: Path) -> None:
    made = certify(tmp_path)
    add(tmp_path / "data", "root", "pw", ["$admins"])
    config = NodeConfig(tmp_path / "data", port=0, tls_cert=made.certificate, tls_key=made.key)
    with ServedNode(config) as node:
        host, _, port = node.address.rpartition(":")
        hello = client_hello(made.authority)

        def leave(client: int) -> None:
            for number in range(CONNECTIONS):
                with socket.create_connection((host, int(port)), 30) as begun:
                    begun.sendall(hello[: (0, 50, len(hello))[(client + number) % 3]])

        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(leave, range(CLIENTS)))
        log = connect(f"esdb://root:pw@{node.address}?TlsCaFile={made.authority}")
        log.append("s", ANY, [content_event("s", "T", b"x")])
        assert log.last_revision("s") == 0
        log.close()


def client_hello(authority: Path) -> bytes:
    """The first message of a handshake (RFC 8446, 4.1.2)."""
    context = trusting(authority)
    context.set_alpn_protocols(["h2"])
    sent = ssl.MemoryBIO()
    handshake = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost")
    try:
        handshake.do_handshake()
    except ssl.SSLWantReadError:
        return sent.read()
    raise AssertionError("the handshake needs no answer")
