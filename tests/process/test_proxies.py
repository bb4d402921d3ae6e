"""Proxies of the environment: never for what is on this machine, and named where they do not answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kt_es.cli.operators.status_parts import ScrapedMetrics
from kt_es.cli.owners.hooks import Hooks
from kt_es.client.transport import Transport
from kt_es.errors import ConfigError, UnavailableError
from kt_es.eventstore.connecting import connect
from kt_es.eventstore.esdb_client import plain_client
from kt_es.node.server import NodeConfig
from kt_es.process.network import is_loopback, proxy_for, uses_proxies
from tests.contracts.nodes import ServedNode

NAMES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "no_proxy", "no_grpc_proxy")


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment whose proxies refuse every connection."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in NAMES[:4]:
        monkeypatch.setenv(name, "http://127.0.0.1:9")


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        data = b"kt_figure 1\n" if self.path == "/metrics" else b"{}"
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def here() -> Iterator[str]:
    """A server on this machine: its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.usefixtures("proxied")
def test_nothing_on_this_machine_is_asked_through_a_proxy(here: str) -> None:
    for url in (here, here.replace("127.0.0.1", "localhost")):
        assert Transport(url).get("/v1/config", time.monotonic() + 60).status == 200
        assert ScrapedMetrics.at(f"{url}/metrics", "kt_figure").value("kt_figure") == 1
        assert Hooks(webhook=url).run({}, ["webhook"]) == {}


@pytest.mark.usefixtures("proxied")
def test_an_event_log_on_this_machine_is_not_asked_through_a_proxy(tmp_path: Path) -> None:
    with ServedNode(NodeConfig(tmp_path, port=0, anonymous=True)) as node:
        port = node.address.rpartition(":")[2]
        for target in (node.address, f"localhost:{port}", f"{node.address},127.0.0.1:1"):
            log = connect(f"esdb://{target}?Tls=false")
            assert log.last_revision("s") == -1
            log.close()
        client = plain_client(f"esdb://{node.address}?Tls=false")
        assert client.get_commit_position() is not None
        client.close()


@pytest.mark.usefixtures("proxied")
def test_elsewhere_the_proxy_is_asked_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = Transport("http://kt.example.org")
    with pytest.raises(UnavailableError, match="asked through the proxy that the environment names"):
        elsewhere.get("/v1/config", time.monotonic() + 5, patient=False)
    monkeypatch.setenv("no_proxy", "example.org")
    assert not proxy_for("http://kt.example.org")
    assert proxy_for("http://kt.example.com")


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "nonsense://127.0.0.1:9", "http://127.0.0.1:port"])
@pytest.mark.usefixtures("proxied")
def test_a_proxy_that_cannot_be_used_is_reported_as_such(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    for name in NAMES[:3]:
        monkeypatch.setenv(name, proxy)
    with pytest.raises(ConfigError, match="proxy that the environment names cannot be used"):
        Transport("https://kt.example.org")
    Transport("http://127.0.0.1:1").close()


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST.", "kt.localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "::ffff:127.0.0.1"],
)
def test_this_machine_has_many_names(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "localhost.example", "127.0.0.1.example", "192.0.2.1", "::2", "::ffff:192.0.2.1"]
)
def test_others_are_elsewhere(host: str) -> None:
    assert not is_loopback(host)
    assert uses_proxies(f"http://{host}" if ":" not in host else f"http://[{host}]")
