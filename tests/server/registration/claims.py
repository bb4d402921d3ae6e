"""What the tests of the gate share: claims, a clock, and a certificate authority."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from kt_es.formats.registration import binding_of
from kt_es.server.registration.claims import Claim
from tests import builders as b
from tests.contracts.certificates import Certified, certify


@dataclass
class Clock:
    """Seconds, which only the test moves."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def claim(label: str = "bob@example.org", *keys: str, policy: str = "email") -> Claim:
    """The claim to register ``label`` with the keys of these names, by default bob's."""
    public = [b.public(b.private_key(name)) for name in keys or ("bob",)]
    return Claim(label, policy, binding_of(b.ORIGIN, label, public))


def served(folder: Path) -> tuple[Certified, ssl.SSLContext]:
    """A new authority, and a context that serves with its certificate for localhost."""
    certified = certify(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certified.certificate, certified.key)
    return certified, context
