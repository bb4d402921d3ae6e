"""nginx and Caddy as deploy/ has them, in front of a server that writes down what reaches it.

Where one of them is not installed, its tests are skipped and say so.
"""

from __future__ import annotations

import http.client
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.contracts.certificates import certify, trusting
from tests.e2e.processes import until

pytestmark = pytest.mark.e2e

DEPLOY = Path(__file__).parents[2] / "deploy"
HOST = "kt.example.org"
INSIDE = ("/metrics", "/readyz", "/healthz")
# Ways to write the same, which must not get around the rule.
DISGUISED = ("/%6detrics", "//metrics", "/v1/../metrics", "/metrics?x=1", "/./metrics", "/metric%73")


class Seen:
    """What reached the front end's place: path and headers."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        seen = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                seen.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
                with suppress(ConnectionError):
                    self.rfile.read(int(self.headers.get("content-length") or 0))
                # A proxy that refuses a body may be gone.
                with suppress(ConnectionError):
                    self.send_response(200)
                    self.send_header("Content-Length", "2")
                    self.end_headers()
                    self.wfile.write(b"ok")

            do_POST = do_GET  # noqa: N815  the library's name

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Connections that a proxy cuts are what it is asked for."""

        self.server = Server(("127.0.0.1", 0), Handler)

    def asked_of_users(self) -> list[str]:
        """Without what a proxy asks for itself."""
        return [path for path, headers in self.requests if headers.get("x-forwarded-for")]


@pytest.fixture
def seen() -> Iterator[Seen]:
    made = Seen()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
        thread.join()


Connect = Callable[[], http.client.HTTPConnection]


class Local(http.client.HTTPConnection):
    """A connection by a socket in the file system, with TLS where there is a context."""

    def __init__(self, path: Path, context: ssl.SSLContext | None = None) -> None:
        super().__init__(HOST, timeout=30)
        self._path = path
        self._context = context

    def connect(self) -> None:
        plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        plain.settimeout(30)
        try:
            plain.connect(str(self._path))
            self.sock = plain if self._context is None else self._context.wrap_socket(plain)
        except BaseException:
            plain.close()
            raise


@contextmanager
def running(words: list[str], path: Path, said: Path, **environment: str) -> Iterator[None]:
    """A program until the end of the block; it has made the socket ``path`` when the block begins."""
    with said.open("wb") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file, env={"PATH": "/usr/bin", **environment})
    try:

        def serves() -> bool:
            assert process.poll() is None, said.read_text()
            return path.exists()

        until(serves, "the proxy listens")
        yield
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def nginx(folder: Path, seen: Seen) -> Iterator[Connect]:
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None:
        pytest.skip("nginx is not installed")
    made = certify(folder)
    path = folder / "https"
    text = (DEPLOY / "nginx" / "kt-es.conf").read_text()
    for old, new in (
        ("listen 80;", f"listen unix:{folder}/http;"),
        ("    listen [::]:80;\n", ""),
        ("listen 443 ssl http2;", f"listen unix:{path} ssl http2;"),
        ("    listen [::]:443 ssl http2;\n", ""),
        ("127.0.0.1:8080", f"127.0.0.1:{seen.server.server_port}"),
        ("/etc/letsencrypt/live/kt.example.org/fullchain.pem", str(made.certificate)),
        ("/etc/letsencrypt/live/kt.example.org/privkey.pem", str(made.key)),
        ("/var/log/nginx", str(folder)),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    config = folder / "nginx.conf"
    temporary = "".join(
        f"{what}_temp_path {folder}/{what};" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log stderr;\n"
        f"events {{}}\nhttp {{ {temporary}\n{text}\n}}\n"
    )
    words = [program, "-c", str(config), "-p", str(folder)]
    tested = subprocess.run([*words, "-t"], capture_output=True, text=True, timeout=60, check=False)
    assert tested.returncode == 0, tested.stderr
    assert "[warn]" not in tested.stderr
    context = trusting(made.authority)
    context.check_hostname = False
    with running(words, path, folder / "said"):
        yield lambda: Local(path, context)


@contextmanager
def caddy(folder: Path, seen: Seen) -> Iterator[Connect]:
    program = shutil.which("caddy")
    if program is None:
        pytest.skip("caddy is not installed")
    path = folder / "http"
    text = (DEPLOY / "caddy" / "Caddyfile").read_text()
    for old, new in (
        # Without asking an authority for a certificate, and without a port.
        ("{\n\tservers {", "{\n\tadmin off\n\tauto_https off\n\tservers {"),
        ("kt.example.org {", f"http://kt.example.org {{\n\tbind unix/{path}"),
        ("127.0.0.1:8080", f"127.0.0.1:{seen.server.server_port}"),
        ("/var/log/caddy", str(folder)),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    config = folder / "Caddyfile"
    config.write_text(text)
    words = [program, "run", "--adapter", "caddyfile", "--config", str(config)]
    with running(words, path, folder / "said", HOME=str(folder), XDG_DATA_HOME=str(folder)):
        yield lambda: Local(path)


PROXIES = {"nginx": nginx, "caddy": caddy}


@pytest.fixture(params=PROXIES)
def connect(request: pytest.FixtureRequest, tmp_path: Path, seen: Seen) -> Iterator[Connect]:
    with PROXIES[request.param](tmp_path, seen) as connect:
        yield connect


def asked(connect: Connect, path: str, body: bytes | None = None, **headers: str) -> int:
    with closing(connect()) as connection:
        connection.request("GET" if body is None else "POST", path, body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status


def test_metrics_stay_inside(connect: Connect, seen: Seen) -> None:
    assert asked(connect, "/v1/directory") == 200
    assert asked(connect, "/v1/lookup", b"{}") == 200
    for path in (*INSIDE, *DISGUISED):
        if asked(connect, path) == 200:
            # What was passed on names none of them for the front end, which takes paths as they come.
            assert seen.requests[-1][0].partition("?")[0] not in INSIDE, path
    assert not set(INSIDE) & {path.partition("?")[0] for path in seen.asked_of_users()}


def test_the_front_end_learns_the_client_from_the_proxy_alone(connect: Connect, seen: Seen) -> None:
    headers = {"X-Forwarded-For": "203.0.113.66", "X-Real-IP": "203.0.113.66"}
    assert asked(connect, "/v1/directory", None, **headers) == 200
    path, got = seen.requests[-1]
    assert path == "/v1/directory"
    assert got["host"] == HOST
    assert "203.0.113.66" not in got["x-forwarded-for"]
    assert "," not in got["x-forwarded-for"]


def test_a_body_is_bounded(connect: Connect, seen: Seen) -> None:
    assert asked(connect, "/v1/mutations", b"x" * 1_258_291) == 200
    assert asked(connect, "/v1/mutations", b"x" * 1_400_000) in {413, 502}


def test_nothing_of_a_body_is_logged(connect: Connect, tmp_path: Path, seen: Seen) -> None:
    assert asked(connect, "/v1/lookup", b'{"label": "quiet.person@example.org"}') == 200
    logged = "".join(file.read_text() for file in tmp_path.glob("*.log")) + (tmp_path / "said").read_text()
    assert "quiet.person" not in logged
