"""Endpoints for people who want to register a label: the ways that are open, and mails with proofs."""

from __future__ import annotations

from functools import partial

from kt_es.api import operations
from kt_es.api.operations import ProblemReason
from kt_es.api.registering import MailProofBody, MailProofRequest, RegistrationBody
from kt_es.errors import KtError, RefusedError
from kt_es.formats.labels import normalize_label
from kt_es.formats.registration import BINDING_LENGTH, check_code
from kt_es.server.asgi import Scope
from kt_es.server.endpoints.common import Endpoints, Frontend, answer_of
from kt_es.server.networks import address_network
from kt_es.server.registration.claims import REFUSED, Claim, RegistrationError
from kt_es.server.registration.mail import MailWay, flooded
from kt_es.server.registration.mail_limits import TooMany
from kt_es.server.responses import Answer, NotNowError, Problem
from kt_es.server.submission import run_in

MAX_MAILS = 16
"""Mails that may wait for the mail server at a time."""


class RegisteringEndpoints:
    """Tell the ways to register, and send mail proofs."""

    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend
        self._sending = 0

    def by_operation(self) -> Endpoints:
        return [
            (operations.REGISTRATION, self._ways),
            (operations.MAIL_PROOFS, self._mail),
        ]

    async def _ways(self, _: None, __: Scope) -> Answer:
        settings = self._frontend.registration.settings
        oidc = settings.oidc
        names = (None, None) if oidc is None else (oidc.issuer, oidc.client_id)
        return answer_of(RegistrationBody(settings.ways, *names))

    async def _mail(self, asked: MailProofRequest, scope: Scope) -> Answer:
        frontend, way = self._frontend, self._frontend.registration.mail
        config = frontend.directory.config(frontend.directory.committed())
        normalize_label(asked.label, config.label_policy)
        if len(asked.binding) != BINDING_LENGTH:
            raise RefusedError(ProblemReason.MALFORMED, f"must have {BINDING_LENGTH} bytes", "binding")
        if way is None:
            problem = "this front end sends no registration mails; GET /v1/registration says what it takes"
            raise RegistrationError(REFUSED, problem, frontend.registration.settings.ways)
        if self._sending >= MAX_MAILS:
            raise NotNowError("too many registration mails are being sent; try again later", 5.0)
        client = address_network(scope["client"][0] if scope.get("client") else "")
        self._sending += 1
        try:
            limit = await run_in(frontend.mails, partial(self._send, way, asked, client))
        except KtError:
            frontend.metrics.mails.labels("failed").inc()
            raise
        finally:
            self._sending -= 1
        if limit is not None:
            frontend.metrics.mails.labels(f"limit-{limit.what}").inc()
            return Problem(
                429, ProblemReason.TOO_MANY_REQUESTS, flooded(limit), retry_after=limit.wait
            ).answer
        frontend.metrics.mails.labels("sent").inc()
        return answer_of(MailProofBody(check_code(asked.binding)), 202)

    def _send(self, way: MailWay, asked: MailProofRequest, client: str) -> TooMany | None:
        """Send the mail if the label is free. Runs in a thread."""
        directory = self._frontend.directory
        committed = directory.committed()
        config = directory.config(committed)
        label = normalize_label(asked.label, config.label_policy)
        if directory.current(committed, directory.indexer.locate(label)[0]) is not None:
            problem = "this label is registered already, and its owner signs each change: no proof is needed"
            raise RegistrationError(REFUSED, problem)
        return way.send(Claim(label, config.label_policy, asked.binding), config.origin, client)
