"""The settings of the gate, as ``kt.toml`` and the files that it names give them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from kt_es.formats.registration import OPEN
from kt_es.server.registration.tokens import Token

Security: TypeAlias = Literal["starttls", "tls", "none"]

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519")
"""Algorithms that an ID token may be signed with, if the operator allows it: none with a shared secret."""


@dataclass(frozen=True, slots=True)
class MailSettings:
    """How mail proofs are made and sent.

    Attributes:
        secret: The key of the proofs, the same for all front ends of the directory.
        sender: The address that the mails come from.
        host, port, security: The SMTP server; ``none`` is for loopback alone.
        user, password: The login, with an empty user for none.
        ca: Certificates that the server's is verified with; None for those of public authorities.
        lifetime: Seconds for which a proof is valid.
        address_mails, client_mails, all_mails: Mails in an hour to one address, for one client, in all.
    """

    secret: bytes = field(repr=False)
    sender: str
    host: str
    port: int = 587
    security: Security = "starttls"
    user: str = ""
    password: str = field(default="", repr=False)
    ca: Path | None = None
    lifetime: int = 3600
    address_mails: int = 3
    client_mails: int = 10
    all_mails: int = 600


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """The issuer whose ID tokens are accepted.

    Attributes:
        issuer: Its address, exactly as ``iss`` has it.
        client_id: The client that the tokens are for, their ``aud``.
        algorithms: Those that are accepted.
        ca: Certificates that the issuer's is verified with; None for those of public authorities.
        max_age: Seconds after which a token is too old, whatever its ``exp`` says.
    """

    issuer: str
    client_id: str
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    ca: Path | None = None
    max_age: int = 3600


@dataclass(frozen=True, slots=True)
class RegistrationSettings:
    """Who may register a label. The settings of a way that is not in ``ways`` are None."""

    ways: tuple[str, ...] = (OPEN,)
    tokens: tuple[Token, ...] | None = None
    mail: MailSettings | None = None
    oidc: OidcSettings | None = None


ANYBODY = RegistrationSettings()
"""The settings without ``[registration]``."""
