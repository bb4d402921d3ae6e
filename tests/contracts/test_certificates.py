"""The certificates of the tests are good enough for every supported Python."""

from __future__ import annotations

import ssl
from pathlib import Path

from tests.contracts.certificates import certify, trusting


def test_python_from_3_13_on_accepts_them(tmp_path: Path) -> None:
    made = certify(tmp_path)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(made.certificate, made.key)
    asked, answered = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting(made.authority).wrap_bio(answered, asked, server_hostname="localhost")
    server = served.wrap_bio(asked, answered, server_side=True)
    for side in (client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert client.getpeercert()
