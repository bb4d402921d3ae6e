"""The way ``email``: whoever reads the mails of an address may register it as a label."""

from __future__ import annotations

import math
from collections.abc import Callable

from kt_es.errors import LabelError
from kt_es.formats import labels
from kt_es.formats.registration import check_code, mail_proof, mail_proof_end
from kt_es.server.registration.claims import Claim, refuse
from kt_es.server.registration.mail_limits import MailLimits, TooMany
from kt_es.server.registration.settings import MailSettings
from kt_es.server.registration.smtp import Mailer, NotSentError

_SUBJECT = "Register your keys in {origin}"
_TEXT = """\
Somebody wants to publish keys for {label}
in the key directory {origin}, and says that it is you.

If it was not you, do nothing and tell nobody this code:
without it nobody can register {label} there.

If it was you, compare the check code. Your program must show the same one:

    {check}

Then give your program this proof, within {minutes} minutes:

    {proof}
"""
_FLOODED = {
    "address": "enough mails went to this address within an hour: use the newest one, or ask again later",
    "client": "this network asked for enough mails within an hour: ask again later",
    "all": "this front end sent enough mails within an hour: ask again later",
}


class MailWay:
    """Sends proofs and checks them. Safe for threads.

    Args:
        limits: What is counted against ``address_mails``, ``client_mails`` and ``all_mails``.
        now: Gives seconds since 1970.
    """

    hint = "a proof that it sends to the address (`kt register mail`, or POST /v1/registration/mail)"

    def __init__(self, settings: MailSettings, limits: MailLimits, now: Callable[[], float]) -> None:
        self._settings = settings
        self._limits = limits
        self._mailer = Mailer(settings)
        self._now = now

    def check(self, claim: Claim, evidence: str) -> None:
        """See ``Way``."""
        until = mail_proof_end(self._settings.secret, claim.binding, evidence)
        if until is None:
            refuse(
                "the mail proof is not for this label with these keys: ask for a mail with the keys that "
                "sign the first version"
            )
        if self._now() >= until:
            refuse("the mail proof has expired: ask for another mail")

    def send(self, claim: Claim, origin: str, client: str) -> TooMany | None:
        """Send a proof for ``claim`` to the address that its label is. Blocks until the mail is taken.

        ``client`` is who asks. Returns the limit that keeps the mail from being sent, if there is one.

        Raises:
            RegistrationError: The label is no address, or cannot be written to.
            UnavailableError: The mail server or the limits cannot be used now. Nothing was sent.
        """
        settings = self._settings
        if not is_address(claim.label):
            refuse("this label is no e-mail address, so no mail can be sent: use another way to register")
        most = settings.address_mails, settings.client_mails, settings.all_mails
        counted = self._limits.count(claim.label, client, most)
        if isinstance(counted, TooMany):
            return counted
        proof = mail_proof(settings.secret, claim.binding, math.floor(self._now()) + settings.lifetime)
        text = _TEXT.format(
            label=claim.label,
            origin=origin,
            check=check_code(claim.binding),
            proof=proof,
            minutes=settings.lifetime // 60,
        )
        try:
            self._mailer.send(claim.label, _SUBJECT.format(origin=origin), text)
        except NotSentError:
            # Any other failure stays counted: the mail may have arrived nevertheless.
            self._limits.forget(counted)
            raise
        return None


def flooded(limit: TooMany) -> str:
    """Return what a client is told about a limit that is reached."""
    return _FLOODED[limit.what]


def is_address(label: str) -> bool:
    """Return whether a normalized label is an address in its normalized form, under any label policy."""
    try:
        return labels.normalize_label(label, labels.EMAIL) == label
    except LabelError:
        return False
