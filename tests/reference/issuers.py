"""A real OpenID Connect issuer on loopback: discovery and JWKS over HTTP(S), and ID tokens."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

Key = RSAKey | ECKey | OKPKey | OctKey

RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
CLIENT_ID = "kt-people"


class Issuer:
    """Serves ``documents`` by path, counts what is asked for, and signs what it is told to."""

    def __init__(self, port: int, scheme: str) -> None:
        self.url = f"{scheme}://localhost:{port}"
        self.keys: list[Key] = [RSA, EC]
        self.asked: list[str] = []
        self.changed: dict[str, Any] = {}  # members of the discovery document
        self.status = 200
        self.raw: bytes | None = None  # instead of the JWKS
        self.gate: threading.Event | None = None  # answers wait for it

    def document(self, path: str) -> bytes | None:
        if path == "/.well-known/openid-configuration":
            return json.dumps({"issuer": self.url, "jwks_uri": f"{self.url}/jwks", **self.changed}).encode()
        if path == "/jwks":
            return (
                self.raw or json.dumps({"keys": [key.as_dict(private=False) for key in self.keys]}).encode()
            )
        return None

    def token(
        self,
        claims: dict[str, Any] | None = None,
        key: Key = RSA,
        alg: str = "RS256",
        *,
        header: dict[str, Any] | None = None,
        payload: bytes | None = None,
    ) -> str:
        """An ID token. A claim or a member of the header that is None is left out."""
        now = time.time()
        base: dict[str, Any] = {"iss": self.url, "aud": CLIENT_ID, "sub": "1", "iat": now, "exp": now + 300}
        made = {name: value for name, value in {**base, **(claims or {})}.items() if value is not None}
        head = {"alg": alg, "kid": key.kid, "typ": "JWT", **(header or {})}
        head = {name: value for name, value in head.items() if value is not None}
        data = json.dumps(made).encode() if payload is None else payload
        return jws.serialize_compact(head, data, key, [alg])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    issuer: Issuer

    def do_GET(self) -> None:
        issuer = self.issuer
        issuer.asked.append(self.path)
        if issuer.gate is not None:
            issuer.gate.wait(30)
        data = issuer.document(self.path)
        self.send_response(issuer.status if data is not None else 404)
        if 300 <= issuer.status < 400:
            self.send_header("location", f"{issuer.url}/jwks")
        self.send_header("content-length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def issuer(context: ssl.SSLContext | None = None) -> Iterator[Issuer]:
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    made = Issuer(server.server_address[1], "http" if context is None else "https")
    handler.issuer = made  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        if made.gate is not None:
            made.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()
