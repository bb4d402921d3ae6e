"""The keys of an OpenID Connect issuer: discovery and JWKS over HTTPS, with limits, cached and rotated.

OpenID Connect Discovery 1.0, 4; RFC 7517. One thread at a time asks the issuer. Others get a 503 meanwhile,
so an issuer that hangs takes one thread and not all of them. A failure is remembered for a few seconds, and a
key that is not in the set makes it be fetched again once a minute at most: tokens with invented key ids must
not turn this front end against the issuer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import httpx
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

from kt_es.api.codec import Json, decode_json
from kt_es.errors import MalformedError
from kt_es.process.network import is_loopback, is_safe, uses_proxies
from kt_es.server.registration.settings import OidcSettings
from kt_es.server.registration.smtp import verifying_context
from kt_es.server.responses import NotNowError

DISCOVERY = "/.well-known/openid-configuration"
MAX_DOCUMENT = 256 << 10
MAX_KEYS = 100
MIN_RSA_BITS = 2048
_MIN_RSA_TEXT = 342  # characters of base64url of such a modulus
TIMEOUT = 5.0
"""Seconds for each step towards the issuer, and for each of its two documents as a whole."""
FRESH = 3600.0
"""Seconds for which a set of keys is used. A key that the issuer withdraws is accepted so long at most."""
AGAIN = 60.0
"""Seconds between two fetches because of a key that is not in the set."""
REST = 10.0
"""Seconds for which a failure is remembered."""

# Whatever else is in a key is of no use.
_MEMBERS = ("kty", "kid", "alg", "n", "e", "crv", "x", "y")

Key = RSAKey | ECKey | OKPKey

_LOG = structlog.get_logger("kt_es.server")
_AWAY = "the OpenID Connect issuer of this directory cannot be used now; try again later"


class UnusableError(Exception):
    """The issuer does not answer as it must. The message says what is wrong."""


class IssuerKeys:
    """The keys that one issuer signs ID tokens with. Safe for threads. ``clock`` is monotonic, in seconds."""

    def __init__(self, settings: OidcSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuer = settings.issuer
        self._context = verifying_context(settings.ca, "registration.oidc.ca")
        self._clock = clock
        self._fetching = threading.Lock()
        # Replaced as a whole by the thread that holds the lock.
        self._keys: tuple[Key, ...] = ()
        self._fetched: float | None = None
        self._failed: float | None = None

    def find(self, kid: str | None) -> Key | None:
        """Return the key with the id ``kid``; without one, the only key if there is just one.

        Raises ``NotNowError`` if the issuer cannot be asked.
        """
        if self._fetched is None or self._clock() >= self._fetched + FRESH:
            self._fetch()
        found = self._named(kid)
        if found is None and self._fetched is not None and self._clock() >= self._fetched + AGAIN:
            self._fetch()
            found = self._named(kid)
        return found

    def _named(self, kid: str | None) -> Key | None:
        keys = self._keys
        if kid is None:
            return keys[0] if len(keys) == 1 else None
        named = [key for key in keys if key.kid == kid]
        # Two keys of one name: nobody knows which one is meant.
        return named[0] if len(named) == 1 else None

    def _fetch(self) -> None:
        """Fetch the keys, unless a fetch failed just now. Raises ``NotNowError``."""
        if not self._fetching.acquire(blocking=False):
            raise NotNowError(_AWAY, 1.0)
        try:
            if self._failed is not None and self._clock() < self._failed + REST:
                raise NotNowError(_AWAY, REST)
            try:
                self._keys = self._fetched_keys()
            except (UnusableError, MalformedError, httpx.HTTPError, httpx.InvalidURL) as error:
                self._failed = self._clock()
                _LOG.error(
                    "the keys of the issuer cannot be fetched", issuer=self._issuer, reason=_said(error)
                )
                raise NotNowError(_AWAY, REST) from None
            self._fetched, self._failed = self._clock(), None
        finally:
            self._fetching.release()

    def _fetched_keys(self) -> tuple[Key, ...]:
        with httpx.Client(
            verify=self._context,
            timeout=TIMEOUT,
            follow_redirects=False,
            trust_env=uses_proxies(self._issuer),
            headers={"accept": "application/json", "accept-encoding": "identity"},
        ) as client:
            found = _document(client, self._issuer.rstrip("/") + DISCOVERY)
            if found.get("issuer") != self._issuer:
                raise UnusableError("its discovery document names another issuer")
            where = found.get("jwks_uri")
            if not isinstance(where, str) or not is_safe(where):
                raise UnusableError("its discovery document has no jwks_uri with https://")
            if is_loopback(urlsplit(where).hostname or "") and not is_loopback(
                urlsplit(self._issuer).hostname or ""
            ):
                raise UnusableError("its jwks_uri is an address of this machine")
            return _keys_of(_document(client, where))


def _document(client: httpx.Client, url: str) -> Mapping[str, Json]:
    """Return the JSON object at ``url``: of bounded size, within a bounded time, without redirects."""
    until = time.monotonic() + TIMEOUT
    data = b""
    with client.stream("GET", url) as response:
        if response.status_code != 200:
            raise UnusableError(f"it answers with status {response.status_code}")
        for part in response.iter_raw():
            data += part
            if len(data) > MAX_DOCUMENT:
                raise UnusableError(f"it answers with more than {MAX_DOCUMENT} bytes")
            if time.monotonic() > until:
                raise UnusableError("its answer takes too long")
    return decode_json(data, "its document")


def _keys_of(document: Mapping[str, Json]) -> tuple[Key, ...]:
    """Return the keys for signatures in a JWKS. Keys of unknown kinds are passed over (RFC 7517, 5)."""
    found = document.get("keys")
    if not isinstance(found, list) or len(found) > MAX_KEYS:
        raise UnusableError(f"its JWKS has no list of at most {MAX_KEYS} keys")
    keys = tuple(key for each in found if (key := _key(each)) is not None)
    if not keys:
        raise UnusableError("its JWKS has no key that signatures can be verified with")
    return keys


def _key(value: Json) -> Key | None:
    if not isinstance(value, Mapping) or value.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    if value.get("use", "sig") != "sig":
        return None
    given = {name: value[name] for name in _MEMBERS if name in value}
    public: dict[str, str | list[str]] = {name: part for name, part in given.items() if isinstance(part, str)}
    if len(public) < len(given):
        return None
    if public["kty"] == "RSA" and len(str(public.get("n"))) < _MIN_RSA_TEXT:
        return None
    try:
        key = JWKRegistry.import_key(public)
        if isinstance(key, RSAKey) and key.raw_value.key_size < MIN_RSA_BITS:
            return None
        return None if not isinstance(key, Key) or key.raw_value is None else key
    except (JoseError, ValueError, KeyError, TypeError):
        return None


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
