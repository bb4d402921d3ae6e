"""ID tokens of a real issuer on loopback: what lets in, and each thing that does not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from kt_es.formats.registration import nonce_of
from kt_es.server.registration.claims import RegistrationError
from kt_es.server.registration.issuer import AGAIN, FRESH, REST, IssuerKeys
from kt_es.server.registration.oidc import OidcWay
from kt_es.server.registration.settings import OidcSettings
from kt_es.server.responses import NotNowError
from tests.reference.issuers import CLIENT_ID, EC, RSA, Issuer, issuer
from tests.server.registration.claims import Clock, claim, served

BOB = "bob@example.org"
GOOD: dict[str, Any] = {"nonce": nonce_of(claim().binding), "email": BOB, "email_verified": True}

_ELSEWHERE = OidcSettings("https://issuer.example", CLIENT_ID)
NOWHERE = OidcWay(_ELSEWHERE, IssuerKeys(_ELSEWHERE), time.time)
"""Asks nobody as long as no token names an algorithm that it accepts."""


def way(of: Issuer, clock: Clock | None = None, **changed: Any) -> OidcWay:
    made = OidcSettings(**{"issuer": of.url, "client_id": CLIENT_ID, **changed})
    return OidcWay(made, IssuerKeys(made, clock or Clock()), time.time)


def encoded(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Issuer, OidcWay]]:
    """An issuer that no test changes."""
    with issuer() as made:
        yield made, way(made)


@pytest.fixture
def own() -> Iterator[Issuer]:
    with issuer() as made:
        yield made


@pytest.mark.parametrize(("key", "alg"), [(RSA, "RS256"), (EC, "ES256")])
def test_a_verified_address_lets_in(shared: tuple[Issuer, OidcWay], key: Any, alg: str) -> None:
    made, way = shared
    way.check(claim(), made.token(GOOD, key, alg))
    way.check(claim(), made.token({**GOOD, "email": "BOB@Example.org"}, key, alg))
    way.check(claim(), made.token({**GOOD, "aud": [CLIENT_ID]}, key, alg))
    way.check(claim(), made.token({**GOOD, "aud": [CLIENT_ID, "other"], "azp": CLIENT_ID}, key, alg))


NOW = time.time()
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another issuer": ({"iss": "https://evil.example"}, "not of the issuer"),
    "no issuer": ({"iss": None}, "not of the issuer"),
    "another client": ({"aud": "other"}, "for another client"),
    "no client": ({"aud": None}, "for another client"),
    "several clients, issued to none": ({"aud": [CLIENT_ID, "other"]}, "for another client"),
    "issued to another client": ({"aud": [CLIENT_ID, "other"], "azp": "other"}, "for another client"),
    "a client that contains ours": ({"aud": CLIENT_ID + "x"}, "for another client"),
    "expired": ({"exp": NOW - 3000, "iat": NOW - 3300}, "has expired"),
    "issued long ago": ({"iat": NOW - 4000, "exp": NOW + 1e6}, "has expired"),
    "without an end": ({"exp": None}, "does not say when"),
    "without a beginning": ({"iat": None}, "does not say when"),
    "an end that is no number": ({"exp": "tomorrow"}, "does not say when"),
    "an end that is true": ({"exp": True}, "does not say when"),
    "from the future": ({"iat": NOW + 1000, "exp": NOW + 2000}, "from the future"),
    "not yet valid": ({"nbf": NOW + 1000}, "from the future"),
    "no nonce": ({"nonce": None}, "not for this label with these keys"),
    "a nonce for other keys": ({"nonce": nonce_of(claim(BOB, "mallory").binding)}, "not for this label"),
    "a nonce for another label": ({"nonce": nonce_of(claim("x@example.org").binding)}, "not for this label"),
    "not verified": ({"email_verified": False}, "does not say that its e-mail address is verified"),
    "verified as a text": ({"email_verified": "true"}, "does not say that its e-mail address is verified"),
    "verified as a number": ({"email_verified": 1}, "does not say that its e-mail address is verified"),
    "verified is missing": ({"email_verified": None}, "does not say that its e-mail address is verified"),
    "another address": ({"email": "carol@example.org"}, "is not this label"),
    "no address": ({"email": None}, "is not this label"),
    "a list of addresses": ({"email": [BOB]}, "is not this label"),
    "an address that is none": ({"email": "bob"}, "is not this label"),
}


@pytest.mark.parametrize(("changed", "problem"), REFUSED.values(), ids=REFUSED)
def test_one_wrong_claim_is_refused(
    shared: tuple[Issuer, OidcWay], changed: dict[str, Any], problem: str
) -> None:
    made, way = shared
    token = made.token({**GOOD, **changed})
    with pytest.raises(RegistrationError, match=problem) as refused:
        way.check(claim(), token)
    assert "bob" not in str(refused.value)
    assert "carol" not in str(refused.value)


class TestSignature:
    def refused(self, shared: tuple[Issuer, OidcWay], token: str, problem: str) -> None:
        with pytest.raises(RegistrationError, match=problem):
            shared[1].check(claim(), token)

    def test_no_algorithm_but_those_of_the_list(self, shared: tuple[Issuer, OidcWay]) -> None:
        made = shared[0]
        self.refused(shared, made.token(GOOD, RSA, "PS256"), "algorithm that is not accepted")
        payload = made.token(GOOD).split(".")[1]
        for alg in ("none", "None", "HS256"):
            signed = f"{encoded(json.dumps({'alg': alg, 'kid': 'rsa'}).encode())}.{payload}"
            # The public key, which everybody has, as a shared secret.
            mac = hmac.digest(RSA.as_pem(private=False), signed.encode(), hashlib.sha256)
            self.refused(shared, f"{signed}.{encoded(mac)}", "algorithm that is not accepted")

    def test_of_another_key_under_the_same_id(self, shared: tuple[Issuer, OidcWay]) -> None:
        other = RSAKey.generate_key(2048, {"kid": "rsa"})
        self.refused(shared, shared[0].token(GOOD, other), "signature of the ID token is not valid")

    def test_of_a_key_of_another_kind_under_the_same_id(self, shared: tuple[Issuer, OidcWay]) -> None:
        other = ECKey.generate_key("P-256", {"kid": "rsa"})
        self.refused(shared, shared[0].token(GOOD, other, "ES256"), "signature of the ID token is not valid")

    def test_over_other_claims(self, shared: tuple[Issuer, OidcWay]) -> None:
        token = shared[0].token({**GOOD, "email": "mallory@example.org"})
        header, _, signature = token.split(".")
        payload = shared[0].token(GOOD).split(".")[1]
        self.refused(shared, f"{header}.{payload}.{signature}", "signature of the ID token is not valid")

    def test_no_access_token_and_no_critical_extension(self, shared: tuple[Issuer, OidcWay]) -> None:
        made = shared[0]
        self.refused(shared, made.token(GOOD, header={"typ": "at+jwt"}), "no ID token")
        _, payload, signature = made.token(GOOD).split(".")
        head = encoded(json.dumps({"alg": "RS256", "kid": "rsa", "crit": ["b64"], "b64": False}).encode())
        self.refused(shared, f"{head}.{payload}.{signature}", "signature of the ID token is not valid")

    def test_a_claim_that_stands_twice_is_refused(self, shared: tuple[Issuer, OidcWay]) -> None:
        text = json.dumps({**GOOD, "iss": shared[0].url, "aud": CLIENT_ID, "iat": NOW, "exp": NOW + 300})
        twice = text.replace('"email":', '"email": "mallory@example.org", "email":')
        self.refused(shared, shared[0].token(payload=twice.encode()), "not valid")

    @given(st.binary(max_size=60), st.binary(max_size=60))
    @settings(max_examples=200, deadline=None)
    def test_anything_else_is_refused_and_never_fails(self, header: bytes, rest: bytes) -> None:
        for head in (header, b"[]", b"1", b"null", b'{"alg": 1}', b'{"alg": ["RS256"]}', b'{"alg": {}}'):
            parts = [encoded(part) or "x" for part in (head, rest, rest)]
            with pytest.raises(RegistrationError):
                NOWHERE.check(claim(), ".".join(parts))


class TestKeys:
    def test_they_are_fetched_once(self, own: Issuer) -> None:
        made = way(own)
        for _ in range(5):
            made.check(claim(), own.token(GOOD))
        assert own.asked == ["/.well-known/openid-configuration", "/jwks"]

    def test_a_new_key_is_found_but_not_looked_for_at_every_token(self, own: Issuer) -> None:
        clock = Clock()
        made = way(own, clock)
        made.check(claim(), own.token(GOOD))
        new = RSAKey.generate_key(2048, {"kid": "new"})
        own.keys = [new]
        for _ in range(3):
            with pytest.raises(RegistrationError, match="a key that its issuer does not publish"):
                made.check(claim(), own.token(GOOD, new))
        assert len(own.asked) == 2
        clock.now += AGAIN
        made.check(claim(), own.token(GOOD, new))
        assert len(own.asked) == 4
        # The old one is withdrawn with that.
        with pytest.raises(RegistrationError):
            made.check(claim(), own.token(GOOD))

    def test_a_withdrawn_key_is_accepted_for_an_hour_at_most(self, own: Issuer) -> None:
        clock = Clock()
        made = way(own, clock)
        made.check(claim(), own.token(GOOD))
        own.keys = [EC]
        clock.now += FRESH - 1
        made.check(claim(), own.token(GOOD))
        clock.now += 1
        with pytest.raises(RegistrationError):
            made.check(claim(), own.token(GOOD))

    def test_a_token_without_a_key_id_needs_an_issuer_with_one_key(self, own: Issuer) -> None:
        token = own.token(GOOD, header={"kid": None})
        with pytest.raises(RegistrationError):
            way(own).check(claim(), token)
        own.keys = [RSA]
        way(own).check(claim(), token)

    def test_keys_that_are_not_for_signatures_or_too_weak_are_passed_over(self, own: Issuer) -> None:
        private = rsa.generate_private_key(65537, 1024)
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with pytest.warns(SecurityWarning):
            weak = RSAKey.import_key(pem, {"kid": "weak"})
        encrypts = RSAKey.generate_key(2048, {"kid": "encrypts", "use": "enc"})
        other = OKPKey.generate_key("Ed25519", {"kid": "other"})
        own.keys = [weak, encrypts, OctKey.generate_key(256, {"kid": "shared"}), other]
        made = way(own, algorithms=("RS256", "Ed25519"))
        with pytest.raises(RegistrationError, match="does not publish"):
            made.check(claim(), own.token(GOOD, weak))
        made.check(claim(), own.token(GOOD, other, "Ed25519"))

    @pytest.mark.parametrize(
        "broken",
        [
            {"changed": {"issuer": "https://evil.example"}},
            {"changed": {"jwks_uri": "http://issuer.example/jwks"}},
            {"changed": {"jwks_uri": None}},
            {"changed": {"jwks_uri": 7}},
            {"status": 302},
            {"status": 500},
            {"raw": b"[]"},
            {"raw": b'{"keys": []}'},
            {"raw": b'{"keys": {}}'},
            {"raw": b'{"keys": [1, {}, {"kty": "RSA"}, {"kty": "EC", "crv": "P-256", "x": "?", "y": ""}]}'},
            {"raw": b'{"keys": [' + b'{"kty": "RSA"},' * 100 + b"{}]}"},
            {"raw": b" " * (300 << 10)},
        ],
    )
    def test_an_issuer_that_answers_otherwise_is_away(self, own: Issuer, broken: dict[str, Any]) -> None:
        for name, value in broken.items():
            setattr(own, name, value)
        clock = Clock()
        made = way(own, clock)
        for _ in range(3):
            with pytest.raises(NotNowError, match="issuer of this directory cannot be used now"):
                made.check(claim(), own.token(GOOD))
        asked = len(own.asked)
        assert asked <= 2, "it was asked again at once"
        own.changed, own.status, own.raw = {}, 200, None
        clock.now += REST
        made.check(claim(), own.token(GOOD))

    def test_while_one_thread_waits_for_the_issuer_no_other_does(self, own: Issuer) -> None:
        own.gate = threading.Event()
        made = way(own)
        token = own.token(GOOD)
        first = threading.Thread(target=made.check, args=(claim(), token))
        first.start()
        try:
            while not own.asked:
                threading.Event().wait(0.005)
            with pytest.raises(NotNowError):
                made.check(claim(), token)
        finally:
            own.gate.set()
            first.join(30)
        made.check(claim(), token)


def test_over_https_with_the_authority_that_is_named(tmp_path: Path) -> None:
    certified, context = served(tmp_path)
    with issuer(context) as made:
        assert made.url.startswith("https://")
        way(made, ca=certified.authority).check(claim(), made.token(GOOD))
        with pytest.raises(NotNowError):
            way(made).check(claim(), made.token(GOOD))
