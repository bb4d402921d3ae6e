"""A real SMTP server on loopback, and what it received."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword


@dataclass(frozen=True, slots=True)
class Received:
    """One mail with its envelope."""

    sender: str
    recipients: list[str]
    options: list[str]
    data: bytes
    encrypted: bool
    user: str | None

    @property
    def message(self) -> EmailMessage:
        made = message_from_bytes(self.data, policy=default)
        assert isinstance(made, EmailMessage)
        return made

    @property
    def text(self) -> str:
        return str(self.message.get_content())

    @property
    def proof(self) -> str:
        return self.text.split()[-1]


@dataclass
class Mailbox:
    """A running server. ``answers`` are replies to RCPT by address, instead of accepting it."""

    host: str = "127.0.0.1"
    port: int = 0
    received: list[Received] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)
    data_answer: str = "250 OK"
    logins: list[bytes] = field(default_factory=list)
    held: threading.Event | None = None

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if (answer := self.answers.get(address)) is not None:
            return answer
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        user = session.auth_data.login.decode() if session.authenticated else None
        options = list(envelope.mail_options)
        encrypted = session.ssl is not None or (server.tls_context is None and self.implicit)
        self.received.append(
            Received(envelope.mail_from, envelope.rcpt_tos, options, envelope.content, encrypted, user)
        )
        return self.data_answer

    implicit: bool = False


class _Controller(Controller):
    """A controller whose port is chosen by the system."""

    def _trigger_server(self) -> None:
        # The port is known once the server listens.
        assert isinstance(self.server, asyncio.Server)
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]


@contextmanager
def mailbox(
    context: ssl.SSLContext | None = None,
    *,
    implicit: bool = False,
    utf8: bool = True,
    login: tuple[str, str] | None = None,
) -> Iterator[Mailbox]:
    """Run a server: with STARTTLS by ``context``, or with TLS from the first byte if ``implicit``."""
    made = Mailbox(implicit=implicit)

    def authenticate(server: SMTP, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        made.logins.append(data.login)
        given = (data.login.decode(), data.password.decode())
        return AuthResult(success=login is not None and given == login, handled=False, auth_data=data)

    options: dict[str, Any] = {"enable_SMTPUTF8": utf8}
    if login is not None:
        options |= {"authenticator": authenticate, "auth_required": True}
        options["auth_require_tls"] = not implicit
    if context is not None and not implicit:
        options |= {"tls_context": context, "require_starttls": True}
    controller = _Controller(
        made, hostname="127.0.0.1", port=0, ssl_context=context if implicit else None, **options
    )
    controller.start()
    made.port = controller.port
    try:
        yield made
    finally:
        controller.stop()
