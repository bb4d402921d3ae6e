"""Requests and answers about who may register a label; see ``kt_es.api.models``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from kt_es.api.models import AtMost, Label

MAX_WAYS: Final = 16
"""Ways to register a label in one answer. There are four."""


@dataclass(frozen=True, slots=True)
class MailProofRequest:
    """``binding``: 32 bytes that bind the proof to the label and its first keys (FORMATS, "Registration")."""

    label: Label
    binding: bytes


@dataclass(frozen=True, slots=True)
class RegistrationBody:
    """Who may register a label: ``ways`` are ``open``, or some of ``tokens``, ``email`` and ``oidc``.

    ``issuer`` and ``client_id`` are of the ID tokens for ``oidc``.
    """

    ways: Annotated[tuple[str, ...], AtMost(MAX_WAYS)]
    issuer: str | None
    client_id: str | None


@dataclass(frozen=True, slots=True)
class MailProofBody:
    """The mail is on its way. It has the check code ``check`` in it."""

    check: str
