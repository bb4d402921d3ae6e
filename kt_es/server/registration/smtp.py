"""Sends one mail through the operator's SMTP server: TLS, login, bounded time, one recipient.

The recipient is the label itself, and the text is ours, so nobody can relay a mail of their own. A label has
neither control characters nor white space in it, and ``email`` refuses line breaks in headers as well.
"""

from __future__ import annotations

import smtplib
import ssl
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime, make_msgid
from pathlib import Path

import certifi
import structlog

from kt_es.errors import ConfigError
from kt_es.server.registration.claims import refuse
from kt_es.server.registration.settings import MailSettings
from kt_es.server.responses import NotNowError

TIMEOUT = 10.0
"""Seconds for each step towards the SMTP server, which is the operator's own."""

_LOG = structlog.get_logger("kt_es.server")
_AWAY = "the mail server of this directory cannot be used now; try again later"


class NotSentError(NotNowError):
    """The mail server cannot be reached, or lets nobody in: certainly nothing was sent."""


def ascii_domain(address: str) -> str:
    """Return a normalized label that is an address, with A-labels in place of U-labels in its domain."""
    local, _, domain = address.rpartition("@")
    parts = (
        part if part.isascii() else f"xn--{part.encode('punycode').decode()}" for part in domain.split(".")
    )
    return f"{local}@{'.'.join(parts)}"


class Mailer:
    """Sends mails one by one. Safe for threads: each mail has its own connection."""

    def __init__(self, settings: MailSettings) -> None:
        self._settings = settings
        self._context = tls_context(settings)

    def send(self, address: str, subject: str, text: str) -> None:
        """Return once the SMTP server has taken the mail to ``address``.

        Raises:
            RegistrationError: The server does not deliver to this address.
            NotSentError: The server cannot be reached, or does not let us in. Nothing was sent.
            NotNowError: The server refused the mail, or broke off. Then it may have taken the mail.

        The log of this process says why, without the address.
        """
        address = ascii_domain(address)
        is_ascii = address.isascii()
        server = self._connected()
        try:
            with server:
                if not is_ascii and not server.has_extn("smtputf8"):
                    refuse(
                        "the mail server of this directory cannot write to an address with such characters: "
                        "use another way to register"
                    )
                message = self._message(address, subject, text)
                options = [] if is_ascii else ["SMTPUTF8", "BODY=8BITMIME"]
                policy = SMTP if is_ascii else SMTPUTF8
                server.sendmail(
                    self._settings.sender, [address], message.as_bytes(policy=policy), mail_options=options
                )
        except smtplib.SMTPRecipientsRefused as error:
            # The texts of the server may repeat the address, so the log gets the code alone.
            (code, _), *_ = error.recipients.values()
            _LOG.warning("a mail was refused by the mail server for its recipient", code=code)
            if 500 <= code < 600:
                refuse("the mail server of this directory does not deliver to this address: check the label")
            raise NotNowError(_AWAY, 60.0) from None
        except smtplib.SMTPResponseException as error:
            _LOG.error("the mail server refuses this front end", code=error.smtp_code, error=_name(error))
            raise NotNowError(_AWAY, 60.0) from None
        except (OSError, smtplib.SMTPException) as error:
            _LOG.error("the mail server broke off", host=self._settings.host, error=_name(error))
            raise NotNowError(_AWAY, 10.0) from None

    def _connected(self) -> smtplib.SMTP:
        """Connect, begin TLS before anything else, and log in. Raises ``NotSentError``."""
        settings = self._settings
        try:
            return self._logged_in(settings)
        except smtplib.SMTPResponseException as error:
            code = error.smtp_code
            _LOG.error(
                "the mail server refuses this front end", host=settings.host, code=code, error=_name(error)
            )
        except (OSError, smtplib.SMTPException) as error:
            _LOG.error("the mail server cannot be used", host=settings.host, error=_name(error))
        raise NotSentError(_AWAY, 10.0)

    def _logged_in(self, settings: MailSettings) -> smtplib.SMTP:
        if settings.security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                settings.host, settings.port, timeout=TIMEOUT, context=self._context
            )
        else:
            server = smtplib.SMTP(settings.host, settings.port, timeout=TIMEOUT)
        try:
            if settings.security == "starttls":
                # Raises if the server does not offer it: whoever strips the offer gets no mail and no login.
                server.starttls(context=self._context)
            server.ehlo_or_helo_if_needed()
            if settings.user:
                server.login(settings.user, settings.password)
        except BaseException:
            server.close()
            raise
        return server

    def _message(self, address: str, subject: str, text: str) -> EmailMessage:
        sender = self._settings.sender
        message = EmailMessage()
        message["From"] = Address(addr_spec=sender)
        message["To"] = Address(username=address.rpartition("@")[0], domain=address.rpartition("@")[2])
        message["Subject"] = subject
        message["Date"] = format_datetime(datetime.now(UTC))
        message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
        # Nobody answers these mails: neither out-of-office notes nor bounces to third parties (RFC 3834).
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        return message


def tls_context(settings: MailSettings) -> ssl.SSLContext | None:
    """Return the TLS context for the server; None without TLS. Raises ``ConfigError``."""
    if settings.security == "none":
        return None
    return verifying_context(settings.ca, "registration.email.ca")


def verifying_context(ca: Path | None, setting: str) -> ssl.SSLContext:
    """Return a context that verifies servers with ``ca``, or with public authorities if that is None."""
    try:
        context = ssl.create_default_context(cafile=str(ca or certifi.where()))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{setting} {ca} cannot be used: {error}; name a PEM file there") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _name(error: BaseException) -> str:
    """Return what the log says of an error: nothing that the server wrote, which may repeat the address."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"{type(error).__name__}: {error.verify_message}"
        case smtplib.SMTPNotSupportedError():
            return f"{type(error).__name__}: it offers neither TLS by STARTTLS nor such a login"
        case smtplib.SMTPException():
            return type(error).__name__
    return f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"
