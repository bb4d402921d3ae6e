"""The way ``oidc``: whoever an issuer knows by a verified e-mail address may register it as a label.

OpenID Connect Core 1.0, 3.1.3.7. The nonce of the ID token is the binding of the claim, so a token that was
issued for another program, for other keys or for another label lets nobody in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeGuard

from joserfc import jws
from joserfc.errors import JoseError

from kt_es.api.codec import Json, decode_json
from kt_es.errors import LabelError, MalformedError
from kt_es.formats.labels import normalize_label
from kt_es.formats.registration import nonce_of
from kt_es.server.registration.claims import Claim, refuse
from kt_es.server.registration.issuer import IssuerKeys
from kt_es.server.registration.settings import OidcSettings

LEEWAY = 60
"""Seconds by which the issuer's clock may differ from ours."""

_WHAT = "the ID token"
_SIGN_IN = "sign in again with the nonce that `kt register nonce` prints"


class OidcWay:
    """Checks ID tokens. Safe for threads. ``now`` gives seconds since 1970."""

    def __init__(self, settings: OidcSettings, keys: IssuerKeys, now: Callable[[], float]) -> None:
        self._settings = settings
        self._keys = keys
        self._now = now
        self._registry = jws.JWSRegistry(algorithms=settings.algorithms)

    @property
    def hint(self) -> str:
        return f"an ID token of {self._settings.issuer} for the address (`kt register nonce`)"

    def check(self, claim: Claim, evidence: str) -> None:
        """See ``Way``."""
        claims = self._verified(evidence)
        settings = self._settings
        if claims.get("iss") != settings.issuer:
            refuse(f"{_WHAT} is not of the issuer {settings.issuer}")
        if not _is_for(claims, settings.client_id):
            refuse(f"{_WHAT} is for another client: sign in as the client {settings.client_id}")
        self._check_times(claims)
        if claims.get("nonce") != nonce_of(claim.binding):
            refuse(f"{_WHAT} is not for this label with these keys: {_SIGN_IN}")
        if claims.get("email_verified") is not True:
            refuse(f"{_WHAT} does not say that its e-mail address is verified: verify it at the issuer")
        if not _is_label(claims.get("email"), claim):
            refuse(
                f"the e-mail address of {_WHAT.removeprefix('the ')} is not this label: sign in as its owner"
            )

    def _verified(self, evidence: str) -> Mapping[str, Json]:
        """Return the claims, once the signature is verified with a key of the issuer."""
        try:
            unverified = jws.extract_compact(evidence.encode(), registry=self._registry)
            header = unverified.headers()
            if header.get("alg") not in self._settings.algorithms:
                refuse(f"{_WHAT} is signed with an algorithm that is not accepted here")
            if str(header.get("typ", "JWT")).upper() != "JWT":
                refuse(f"the JWT is no ID token: {_SIGN_IN}")
            kid = header.get("kid")
            key = self._keys.find(kid if isinstance(kid, str) else None)
            if key is None:
                refuse(f"{_WHAT} is signed with a key that its issuer does not publish: {_SIGN_IN}")
            verified = jws.deserialize_compact(evidence, key, registry=self._registry)
            return decode_json(verified.payload, _WHAT)
        except (JoseError, MalformedError, ValueError):
            refuse(f"the signature of {_WHAT} is not valid: {_SIGN_IN}")

    def _check_times(self, claims: Mapping[str, Json]) -> None:
        now, end, issued = self._now(), claims.get("exp"), claims.get("iat")
        if not _is_time(end) or not _is_time(issued):
            refuse(f"{_WHAT} does not say when it was issued and when it expires")
        if now >= end + LEEWAY or now >= issued + self._settings.max_age + LEEWAY:
            refuse(f"{_WHAT} has expired: {_SIGN_IN}")
        not_before = claims.get("nbf", 0)
        if not _is_time(not_before) or max(issued, not_before) > now + LEEWAY:
            refuse(f"{_WHAT} is from the future: the clocks of issuer and front end differ")


def _is_for(claims: Mapping[str, Json], client_id: str) -> bool:
    """Return whether a token is for ``client_id`` and, if it is for several clients, was issued to it."""
    audience, party = claims.get("aud"), claims.get("azp")
    several = audience if isinstance(audience, list) else [audience]
    if client_id not in several or (len(several) > 1 and party is None):
        return False
    return party is None or party == client_id


def _is_label(email: Json, claim: Claim) -> bool:
    if not isinstance(email, str):
        return False
    try:
        return normalize_label(email, claim.policy) == claim.label
    except LabelError:
        return False


def _is_time(value: Json) -> TypeGuard[int | float]:
    """Return whether ``value`` is a NumericDate (RFC 7519, 2)."""
    return isinstance(value, int | float) and not isinstance(value, bool)
