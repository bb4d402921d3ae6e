"""``[registration]`` of ``kt.toml``: who may register a label."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from kt_es.config.tables import Address, Table, secret_line
from kt_es.errors import ConfigError
from kt_es.formats.registration import EMAIL, OIDC, OPEN, TOKENS, WAYS
from kt_es.process.network import is_loopback, is_safe
from kt_es.server.registration.mail import is_address
from kt_es.server.registration.settings import (
    ALGORITHMS,
    MailSettings,
    OidcSettings,
    RegistrationSettings,
    Security,
)
from kt_es.server.registration.tokens import read_tokens

KEY_LENGTH = 32
_Mails = Annotated[int, Field(ge=1, le=1_000_000)]
_KEY = "the key of registration mails"


class EmailTable(Table):
    """How mail proofs are made and sent. ``password_file`` and ``user`` belong together."""

    smtp: str
    sender: str
    security: Security = "starttls"
    user: str = ""
    password_file: Path | None = None
    tls_ca: Path | None = None
    key: Path = Path("keys/registration.key")
    minutes: Annotated[int, Field(ge=5, le=7 * 24 * 60)] = 60
    address_mails: _Mails = 3
    client_mails: _Mails = 10
    all_mails: _Mails = 600

    @field_validator("smtp")
    @classmethod
    def _smtp(cls, value: str) -> str:
        Address.parse(value)
        return value

    @field_validator("sender")
    @classmethod
    def _sender(cls, value: str) -> str:
        if not value.isascii() or not is_address(value.lower()):
            raise ValueError("it is no e-mail address in ASCII, such as keys@example.org")
        return value

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        if (self.password_file is None) != (not self.user):
            raise ValueError("user and password_file belong together: give both or neither")
        if self.security == "none" and not is_loopback(Address.parse(self.smtp).host):
            raise ValueError(
                "security none would show proofs and password to the network: use starttls or tls, or a mail "
                "server on this machine"
            )
        return self

    def settings(self, base: Path) -> MailSettings:
        """Return the settings, with key and password. Raises ``ConfigError``."""
        where = Address.parse(self.smtp)
        password = ""
        if self.password_file is not None:
            password = secret_line(base / self.password_file, "the password of the mail server")
        return MailSettings(
            secret=_key(base / self.key),
            sender=self.sender,
            host=where.host,
            port=where.port,
            security=self.security,
            user=self.user,
            password=password,
            ca=self.tls_ca and base / self.tls_ca,
            lifetime=60 * self.minutes,
            address_mails=self.address_mails,
            client_mails=self.client_mails,
            all_mails=self.all_mails,
        )


class OidcTable(Table):
    issuer: str
    client_id: Annotated[str, Field(min_length=1, max_length=512)]
    algorithms: Annotated[tuple[str, ...], Field(min_length=1)] = ("RS256", "ES256")
    tls_ca: Path | None = None
    max_age: Annotated[int, Field(ge=60, le=7 * 24 * 3600)] = 3600

    @field_validator("issuer")
    @classmethod
    def _issuer(cls, value: str) -> str:
        if not is_safe(value) or any(sign in value for sign in "?#@ "):
            raise ValueError("it must begin with https://, and have neither user, ? nor #")
        return value

    @field_validator("algorithms")
    @classmethod
    def _algorithms(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in ALGORITHMS:
                raise ValueError(f"{name!r} is none of {', '.join(ALGORITHMS)}")
        return value

    def settings(self, base: Path) -> OidcSettings:
        ca = self.tls_ca and base / self.tls_ca
        return OidcSettings(self.issuer, self.client_id, self.algorithms, ca, self.max_age)


class RegistrationTable(Table):
    """Who may register a label: anybody (``open``), or whoever passes one of the other ways."""

    ways: tuple[str, ...] = (OPEN,)
    tokens: Path = Path("keys/tokens.json")
    email: EmailTable | None = None
    oidc: OidcTable | None = None

    @model_validator(mode="after")
    def _ways_can_be(self) -> Self:
        for name in self.ways:
            if name not in WAYS:
                raise ValueError(f"{name!r} is no way to register: name one of {', '.join(WAYS)}")
        if not self.ways or len(set(self.ways)) < len(self.ways):
            raise ValueError("ways must name at least one way, and each way once")
        if OPEN in self.ways and len(self.ways) > 1:
            raise ValueError("the way open lets anybody in: name it alone, or leave it out")
        for name, table in ((EMAIL, self.email), (OIDC, self.oidc)):
            if name in self.ways and table is None:
                raise ValueError(f"the way {name} needs its settings: add [registration.{name}]")
        return self

    def settings(self, base: Path) -> RegistrationSettings:
        """Return the settings of the ways in use, with what their files hold.

        Args:
            base: The directory to which the files are relative.

        Raises:
            ConfigError: A file cannot be used.
        """
        return RegistrationSettings(
            ways=self.ways,
            tokens=read_tokens(base / self.tokens) if TOKENS in self.ways else None,
            mail=None if self.email is None or EMAIL not in self.ways else self.email.settings(base),
            oidc=None if self.oidc is None or OIDC not in self.ways else self.oidc.settings(base),
        )


def _key(path: Path) -> bytes:
    """Read the key of mail proofs: 64 hexadecimal digits, the one line of a private file."""
    if not path.exists():
        raise ConfigError(f"{_KEY} {path} is missing: make it with `kt registration key`")
    try:
        key = bytes.fromhex(secret_line(path, _KEY))
    except ValueError:
        key = b""
    if len(key) != KEY_LENGTH:
        raise ConfigError(
            f"{_KEY} {path} must have {2 * KEY_LENGTH} hexadecimal digits: make it with `kt registration key`"
        )
    return key
