"""Before the first version of a label: which proof a directory asks for, and how to get one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kt_es.api.codec import decode_member, decode_model
from kt_es.api.operations import MAIL_PROOFS, REGISTRATION
from kt_es.api.registering import MailProofBody, MailProofRequest, RegistrationBody
from kt_es.client.session import Session
from kt_es.errors import ConfigError, MalformedError, RefusedError
from kt_es.formats.entries import PublicKey
from kt_es.formats.registration import (
    MAX_EVIDENCE,
    OPEN,
    WAYS,
    binding_of,
    check_code,
    nonce_of,
    way_of,
)


@dataclass(frozen=True, slots=True)
class RegistrationWays:
    """How a front end lets people register labels. None of this is signed.

    Attributes:
        ways: ``open``, or some of ``tokens``, ``email`` and ``oidc``; unknown ones are left out.
        issuer, client_id: Where to sign in for ``oidc``, and as which client.
    """

    ways: tuple[str, ...]
    issuer: str | None
    client_id: str | None

    @property
    def is_open(self) -> bool:
        return OPEN in self.ways


@dataclass(frozen=True, slots=True)
class RegistrationBinding:
    """What a mail proof or an ID token must be bound to, for one label and the keys of its first version.

    Attributes:
        nonce: The nonce for signing in at the issuer.
        check: The check code that a registration mail must have.
    """

    label: str
    binding: bytes

    @property
    def nonce(self) -> str:
        return nonce_of(self.binding)

    @property
    def check(self) -> str:
        return check_code(self.binding)


class Registering:
    """The steps before the first version of a label. Safe for threads."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def ways(self, *, timeout: float | None = None) -> RegistrationWays:
        """Ask how labels are registered there. Raises ``UnavailableError``, ``MalformedError``."""
        transport = self._session.transport
        answer = transport.get(REGISTRATION.path, transport.deadline(timeout))
        body = decode_model(RegistrationBody, answer.body)
        return RegistrationWays(
            tuple(name for name in body.ways if name in WAYS), body.issuer, body.client_id
        )

    def binding(
        self, label: str, keys: Sequence[PublicKey], *, timeout: float | None = None
    ) -> RegistrationBinding:
        """Return what a proof must be bound to, after a verified lookup of ``label``.

        Args:
            keys: The authorized keys that the first version will have, in any order.

        Raises:
            RefusedError: The label is registered already.
        """
        found = self._session.lookup(label, None, False, self._session.transport.deadline(timeout))
        if found.entry is not None:
            raise RefusedError(
                "registered",
                f"{found.label} is registered already: its owner signs changes, and no proof is needed",
            )
        return RegistrationBinding(found.label, binding_of(found.head.origin, found.label, keys))

    def request_mail(
        self, label: str, keys: Sequence[PublicKey], *, timeout: float | None = None
    ) -> RegistrationBinding:
        """Let the front end send a registration proof to the address ``label``, for these ``keys``.

        The mail has the check code of the result in it. Whoever reads the mail must find the same code there.

        Raises:
            RefusedError: The label is registered, or the front end sends no mail to it.
            UnavailableError: No mail can be sent now, for instance because enough mails were sent.
        """
        bound = self.binding(label, keys, timeout=timeout)
        transport = self._session.transport
        request = MailProofRequest(bound.label, bound.binding)
        answer = transport.post(MAIL_PROOFS.path, request, transport.deadline(timeout))
        if decode_member(MailProofBody, answer.body, "check") != bound.check:
            raise MalformedError("answer", "is about another binding than the one that was sent")
        return bound


def check_evidence(text: str) -> str:
    """Return a registration proof as it is sent. Raises ``ConfigError`` if ``text`` is none."""
    evidence = text.strip()
    if len(evidence) > MAX_EVIDENCE or way_of(evidence) is None:
        # The message does not repeat it, because it may be a secret.
        raise ConfigError(
            "this is no registration proof: give a token (kt-token-...), the proof of a mail (kt-mail-...) "
            "or an ID token, and nothing else"
        )
    return evidence
