"""The gate: asks, for the first version of a label, whether the way that was chosen lets it in.

Who was let in is written nowhere: neither in the logs of the directory nor in this process's. The receipt of
the submission says by which kind of way it was checked. Metrics count admissions and refusals by way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from kt_es.api.models import MutationRequest
from kt_es.errors import ConfigError, UnavailableError
from kt_es.formats.configs import Config
from kt_es.formats.entries import Entry
from kt_es.formats.labels import normalize_label
from kt_es.formats.registration import EMAIL, OIDC, OPEN, TOKENS, binding_of, way_of
from kt_es.process.network import is_loopback
from kt_es.server.registration.claims import REFUSED, REQUIRED, Claim, RegistrationError, Way
from kt_es.server.registration.mail import MailWay
from kt_es.server.registration.mail_limits import MailLimits
from kt_es.server.registration.settings import RegistrationSettings
from kt_es.server.registration.tokens import TokenWay

LIMITS_FILE = "registration.sqlite"
"""The file in the data directory of a front end that has the limits of mails."""

OPEN_WARNING = (
    "anybody who reaches this front end may register any free label: set ways under [registration] in kt.toml"
)

NOBODY = "nobody"
ADMITTED, DECLINED, UNCHECKED = "admitted", "refused", "unavailable"

Counter = Callable[[str, str], None]
"""Counts one decision, by way and result. The way of a claim without a registration proof is ``nobody``."""


class Registration:
    """The gate of one front end. Safe for threads.

    Args:
        settings: The ways and what each of them needs.
        data: The data directory of the front end; ways that need it cannot be used without it.
        counted: Called with each decision.
        now: Gives seconds since 1970.
    """

    def __init__(
        self,
        settings: RegistrationSettings,
        data: Path | None = None,
        counted: Counter = lambda _, __: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._data = data
        self._counted = counted
        self._now = now
        self.settings = settings
        # Replaced as a whole, so that a decision sees either the ways before a reload or those after it.
        self._ways = self._made(settings, {})

    @property
    def is_open(self) -> bool:
        """Whether anybody may register any free label."""
        return OPEN in self.settings.ways

    @property
    def mail(self) -> MailWay | None:
        """The way ``email``, None if it is not in use."""
        way = self._ways.get(EMAIL)
        return way if isinstance(way, MailWay) else None

    def renew(self, settings: RegistrationSettings) -> None:
        """Use these settings from now on. Raises ``ConfigError``; then nothing has changed."""
        ways = self._made(settings, self._ways)
        self.settings, self._ways = settings, ways

    def admit(self, config: Config, entry: Entry, submission: MutationRequest) -> str | None:
        """Return the way that lets a first version in; None for a later version, which its owner signs.

        Args:
            config: The config of the directory in force.
            entry: The entry of ``submission``, which follows the present one.
            submission: The request, whose label is valid.

        Raises:
            RegistrationError: No way does. The message says what to do, without label and evidence.
            UnavailableError: The evidence cannot be checked now.
        """
        if entry.version > 1:
            return None
        label = normalize_label(submission.label, config.label_policy)
        binding = binding_of(config.origin, label, entry.authorized_keys)
        return self.decide(Claim(label, config.label_policy, binding), submission.registration)

    def decide(self, claim: Claim, evidence: str | None) -> str:
        """Return the way that lets ``claim`` in. Raises what ``admit`` raises."""
        if self.is_open:
            self._counted(OPEN, ADMITTED)
            return OPEN
        ways = self._ways
        if evidence is None:
            self._counted(NOBODY, DECLINED)
            raise RegistrationError(
                REQUIRED,
                f"a new label needs a registration proof; this directory takes {_hints(ways)}",
                tuple(ways),
            )
        name = way_of(evidence.strip())
        if name is None or name not in ways:
            self._counted(NOBODY, DECLINED)
            what = (
                "what was sent is no registration proof"
                if name is None
                else f"the way {name} is not in use here"
            )
            raise RegistrationError(REFUSED, f"{what}; this directory takes {_hints(ways)}", tuple(ways))
        try:
            ways[name].check(claim, evidence.strip())
        except RegistrationError as error:
            self._counted(name, DECLINED)
            raise RegistrationError(error.reason, error.problem, tuple(ways)) from None
        except UnavailableError:
            self._counted(name, UNCHECKED)
            raise
        self._counted(name, ADMITTED)
        return name

    def _made(self, settings: RegistrationSettings, before: Mapping[str, Way]) -> dict[str, Way]:
        """Return the ways of ``settings``. A way whose settings did not change keeps what it has cached."""
        ways: dict[str, Way] = {}
        if settings.tokens is not None:
            ways[TOKENS] = TokenWay(settings.tokens, self._now)
        if settings.mail is not None:
            if self._data is None:
                raise ConfigError("the way email needs the data directory of the front end for its limits")
            limits = MailLimits(self._data / LIMITS_FILE, settings.mail.secret, self._now)
            ways[EMAIL] = MailWay(settings.mail, limits, self._now)
        if settings.oidc is not None:
            # joserfc is imported by whoever uses it alone.
            from kt_es.server.registration.issuer import IssuerKeys
            from kt_es.server.registration.oidc import OidcWay

            kept = before.get(OIDC) if settings.oidc == self.settings.oidc else None
            ways[OIDC] = kept or OidcWay(settings.oidc, IssuerKeys(settings.oidc), self._now)
        return ways


def exposed(host: str) -> bool:
    """Return whether a front end that listens at ``host`` can be reached from other machines."""
    # As addresses to listen at, unlike as destinations, these two are all addresses of the machine.
    return host in ("", "0.0.0.0", "::") or not is_loopback(host)  # noqa: S104


def _hints(ways: Mapping[str, Way]) -> str:
    return ", or ".join(way.hint for way in ways.values())
