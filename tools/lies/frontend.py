"""The operator's front end: real HTTP on the loopback, with any answer that the operator wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import parse_qs, urlsplit

from kt_es.formats.entries import Mutation
from kt_es.formats.proofs import LookupAnswer
from tools.lies import answers
from tools.lies.answers import Json
from tools.lies.people import ORIGIN
from tools.lies.universe import Universe

Rewrite = Callable[[Json, Json], Json]
"""Makes the answer that is sent from a request and its true answer."""

Raw = Callable[[BaseHTTPRequestHandler], None]
"""Writes the whole answer to the connection itself."""


class RefusalError(Exception):
    """Raised to make the operator answer with this status and problem."""

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail


class FrontEnd:
    """Serves ``universe``, which may be replaced at any time.

    Attributes:
        rewrite: Changes the answers of a path.
        raw: Writes the answers of a path byte by byte.
        asked: The paths of all requests, in order.
        on_submit: Called with each submitted mutation, instead of publishing it.
    """

    def __init__(self, universe: Universe) -> None:
        self.universe = universe
        self.rewrite: dict[str, Rewrite] = {}
        self.raw: dict[str, Raw] = {}
        self.asked: list[str] = []
        self.on_submit: Callable[[Mutation, bytes, bytes], None] | None = None
        self._lock = threading.Lock()
        front_end = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                front_end.handle(self)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Print nothing, because the harness prints only verdicts."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def __enter__(self) -> FrontEnd:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def rewrite_lookup(self, change: Callable[[LookupAnswer], LookupAnswer]) -> None:
        """Apply ``change`` to each true answer to a lookup."""

        def rewritten(_: Json, received: Json) -> Json:
            answer = change(LookupAnswer.decode(answers.binary(received["answer"])))
            return {**received, "answer": answers.text(answer.encode())}

        self.rewrite["/v1/lookup"] = rewritten

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request. Each request has its own thread."""
        path = urlsplit(handler.path).path
        self.asked.append(path)
        body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        if path in self.raw:
            self.raw[path](handler)
            return
        if path == "/metrics":
            send(handler, 200, f"kt_epoch {len(self.universe.epochs)}.0\n".encode(), "text/plain")
            return
        if path in ("/heads/checkpoint", "/mutations/checkpoint"):
            event = self.universe.epochs[-1].event
            note = event.heads_checkpoint if path.startswith("/heads/") else event.mutations_checkpoint
            send(handler, 200, note.encode(), "text/plain")
            return
        try:
            with self._lock:
                asked = json.loads(body) if body else {}
                received = self._answer(handler.path, asked)
                rewrite = self.rewrite.get(path)
                received = received if rewrite is None else rewrite(asked, received)
            send(handler, 200, json.dumps(received).encode(), "application/json")
        except RefusalError as error:
            problem = {"type": "about:blank", "title": error.reason, "status": error.status}
            problem |= {"reason": error.reason, "detail": error.detail}
            send(handler, error.status, json.dumps(problem).encode(), "application/problem+json")

    def _answer(self, target: str, body: Json) -> Json:
        universe, url = self.universe, urlsplit(target)
        match url.path:
            case "/v1/directory":
                return answers.directory(universe)
            case "/v1/lookup":
                self._check_epoch(body.get("epoch"))
                return answers.lookup(universe, body)
            case "/v1/lookups":
                self._check_epoch(body.get("epoch"))
                return answers.lookups(universe, body)
            case "/v1/range":
                self._check_epoch(body["last"])
                return answers.range_(universe, body)
            case "/v1/status":
                return answers.status(universe, body)
            case "/v1/history":
                return answers.history(universe, body)
            case "/v1/mutations":
                return self._submit(body)
            case "/v1/consistency":
                asked = parse_qs(url.query)
                first, second = int(asked["from"][0]), int(asked["to"][0])
                hashes = answers.consistency(universe, first, second, asked["log"][0])
                return {"hashes": answers.texts(hashes)}
            case "/v1/cosigned":
                return {"heads": [], "mutations": []}
            case "/.well-known/kt-es.json":
                return {"origin": ORIGIN, "vkey": "", "watchers": []}
            case path if path.startswith("/v1/heads/"):
                wanted = path.rpartition("/")[2]
                epoch = len(universe.epochs) if wanted == "latest" else int(wanted)
                self._check_epoch(epoch)
                return answers.head(universe, epoch)
        raise RefusalError(404, "not-found", "there is no such resource")

    def _check_epoch(self, epoch: int | None) -> None:
        if epoch is not None and not 1 <= epoch <= len(self.universe.epochs):
            raise RefusalError(404, "unknown-epoch", "there is no such epoch yet")

    def _submit(self, body: Json) -> Json:
        made = Mutation.decode(answers.binary(body["mutation"]))
        opening, profile = answers.binary(body["opening"]), answers.binary(body["profile"])
        if self.on_submit is not None:
            self.on_submit(made, opening, profile)
        elif self.universe.held(len(self.universe.epochs), made.entry.index) != made:
            self.universe.submit(made, opening, profile)
            self.universe.epoch()
        return {
            "mutation": made.entry_hash.hex(),
            "verdict": "accepted",
            "epoch": len(self.universe.epochs),
            "record": None,
        }


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, kind: str) -> None:
    """Send one complete answer."""
    handler.send_response(status)
    handler.send_header("content-type", kind)
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
