"""Publish the first version of an account through the HTTP interface alone, without the library.

  python examples/submit_over_http.py SERVER VKEY LABEL KEY.pem NAME TEXT

The program needs the standard library, PyNaCl and cbor2. It shows every byte that a client in another
language has to make; the names of the sections are those of docs/FORMATS.md. KEY.pem is an Ed25519 key. The
program makes it where the file does not exist, and `kt` reads it, too. NAME and TEXT become the one key of
the profile, of type `raw`.

The program verifies that the config is signed by the directory's key, and that the VRF proves the index of
the label. It does not verify that the entry stands in the map: look the label up with `kt get` afterwards. It
does not change an account that exists: that needs a verified history, and the library does it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import cbor2
from nacl import bindings
from nacl.signing import SigningKey, VerifyKey

ED25519 = 1
WAIT = 30  # seconds that the front end may take to answer with the verdict
ATTEMPTS = 5
KEY_HEADER = bytes.fromhex("302e020100300506032b657004220420")  # PKCS #8 (RFC 8410), before the seed
COMMITMENT_KEY = bytes.fromhex("d821f8790d97709796b4d7903357c3f5")


def encode(value: Any) -> bytes:
    return cbor2.dumps(value, canonical=True)


def decode(data: bytes) -> Any:
    """Section "Encoding": bytes count only if encoding what was read gives the same bytes."""
    value = cbor2.loads(data)
    if encode(value) != data:
        raise ValueError("not the one encoding of this value")
    return value


def unbase64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def ask(server: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request. The same bytes may be sent again, so 429 and 503 are repeated."""
    data = None if body is None else json.dumps(body).encode()
    headers = {} if body is None else {"content-type": "application/json"}
    request = urllib.request.Request(server.rstrip("/") + path, data, headers)
    for attempt in range(ATTEMPTS):
        try:
            with urllib.request.urlopen(request, timeout=WAIT + 10) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            if error.code not in (429, 503) or attempt == ATTEMPTS - 1:
                problem = json.load(error)
                raise SystemExit(f"{path}: {problem['reason']}: {problem['detail']}") from None
            time.sleep(float(error.headers.get("retry-after", "1")))
        except urllib.error.URLError as error:
            raise SystemExit(f"{server}: {error.reason}") from None
    raise AssertionError


def directory_key(vkey: str) -> tuple[str, bytes]:
    """Origin and Ed25519 key of a C2SP verifier key, `<origin>/heads+hash+base64`."""
    try:
        name, key_hash, encoded = vkey.split("+", 2)
        key = unbase64(encoded)
    except ValueError:
        name, key_hash, key = "", "", b""
    right_hash = hashlib.sha256(name.encode() + b"\n" + key).hexdigest()[:8]
    if key_hash != right_hash or not name.endswith("/heads") or key[:1] != bytes([ED25519]):
        raise SystemExit(f"{vkey} is no Ed25519 verifier key of a log of heads")
    return name.removesuffix("/heads"), key[1:]


def key_id(public: bytes) -> bytes:
    """Section "Hashes": the first 8 bytes of the hash of the encoded key."""
    return hashlib.sha256(encode([ED25519, public])).digest()[:8]


def signed_message(kind: str, origin: str, payload: bytes) -> bytes:
    """Section "Keys and signatures": what a signature is over."""
    return f"kt-es/v1 {kind}\n{origin}\n".encode() + payload


def config_of(directory: dict[str, Any], origin: str, key: bytes) -> list[Any]:
    """Section "Config": a config that `key` signed. The VRF key and the label policy never change."""
    for signed in decode(unbase64(directory["configs"])):
        payload, signatures = decode(signed)
        for signer, signature in signatures:
            if signer == key_id(key):
                VerifyKey(key).verify(signed_message("config", origin, payload), signature)
                config: list[Any] = decode(payload)
                if config[0] == origin:
                    return config
    raise SystemExit("the directory shows no config that its key signed")


def eight_times(point: bytes) -> bytes:
    for _ in range(3):
        point = bindings.crypto_core_ed25519_add(point, point)
    return point


def point_of(vrf_key: bytes, label: bytes) -> bytes:
    """RFC 9381, section 5.4.1.1: the point of the curve that belongs to `label`."""
    for counter in range(256):
        digest = hashlib.sha512(b"\x03\x01" + vrf_key + label + bytes([counter, 0])).digest()[:32]
        if int.from_bytes(digest, "little") & (2**255 - 1) >= 2**255 - 19:
            continue
        try:
            point = eight_times(digest)
        except RuntimeError:  # not on the curve
            continue
        if point != b"\x01" + bytes(31):
            return point
    raise AssertionError


def index_of(vrf_key: bytes, label: bytes, proof: bytes) -> bytes:
    """RFC 9381, section 5.3: the index of `label`, if `proof` is right."""
    gamma, c, s = proof[:32], proof[32:48], proof[48:]
    multiply, subtract = bindings.crypto_scalarmult_ed25519_noclamp, bindings.crypto_core_ed25519_sub
    wide = c + bytes(16)
    point = point_of(vrf_key, label)
    u = subtract(bindings.crypto_scalarmult_ed25519_base_noclamp(s), multiply(wide, vrf_key))
    v = subtract(multiply(s, point), multiply(wide, gamma))
    challenge = hashlib.sha512(b"\x03\x02" + vrf_key + point + gamma + u + v + b"\x00").digest()[:16]
    if challenge != c:
        raise SystemExit("the VRF proof is not for this label")
    return hashlib.sha512(b"\x03\x03" + eight_times(gamma) + b"\x00").digest()[:32]


def check_label(label: str, policy: str) -> None:
    """Section "Labels" is longer: this program takes only labels that normalizing leaves as they are."""
    plain = label.isascii() and label.isprintable() and label == label.strip()
    if not plain or (policy == "email" and (label != label.lower() or "xn--" in label)):
        raise SystemExit(f"{label}: this program takes only plain labels in small ASCII letters")


def signing_key(path: Path) -> SigningKey:
    """The key in the PEM file `path`, a new one if there is no such file."""
    if not path.exists():
        text = base64.b64encode(KEY_HEADER + os.urandom(32)).decode()
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
    lines = path.read_text().split("-----")
    der = base64.b64decode("".join(lines[2].split()), validate=True)
    if not der.startswith(KEY_HEADER) or len(der) != len(KEY_HEADER) + 32:
        raise SystemExit(f"{path} is no Ed25519 key in PKCS #8")
    return SigningKey(der[len(KEY_HEADER) :])


def commit(opening: bytes, label: bytes, version: int, profile: bytes) -> bytes:
    """Section "Profiles, commitments and openings"."""
    message = opening + bytes([len(label)]) + label + version.to_bytes(4) + len(profile).to_bytes(4) + profile
    return hmac.digest(COMMITMENT_KEY, message, "sha256")


def main(arguments: list[str]) -> None:
    server, vkey, label, key_file, name, text = arguments
    origin, pinned = directory_key(vkey)
    config = config_of(ask(server, "/v1/directory"), origin, pinned)
    vrf_key, policy = config[3], config[4]
    check_label(label, policy)

    answer = decode(unbase64(ask(server, "/v1/lookup", {"label": label, "profile": False})["answer"]))
    vrf_proof, mutation = answer[3], answer[5]
    if mutation is not None:
        raise SystemExit(f"{label} has an entry already")
    index = index_of(vrf_key, label.encode(), vrf_proof)

    key = signing_key(Path(key_file))
    public = bytes(key.verify_key)
    profile = encode([[name, "raw", text.encode()]])
    opening = os.urandom(16)
    # Section "Entries and mutations".
    entry = encode([index, 1, commit(opening, label.encode(), 1, profile), [[ED25519, public]], None])
    signature = key.sign(signed_message("entry", origin, entry)).signature
    body = {
        "label": label,
        "mutation": base64.b64encode(encode([entry, [[key_id(public), signature]]])).decode(),
        "opening": base64.b64encode(opening).decode(),
        "profile": base64.b64encode(profile).decode(),
        "wait": WAIT,
    }
    receipt = ask(server, "/v1/mutations", body)
    if receipt["mutation"] != hashlib.sha256(entry).hexdigest():
        raise SystemExit("the receipt is for another mutation")
    if "verdict" in receipt:
        print(f"{label}: {receipt['verdict']} in epoch {receipt['epoch']}")
    else:
        print(f"{label}: queued, not decided yet")


if __name__ == "__main__":
    if len(sys.argv) != 7:
        raise SystemExit(__doc__)
    main(sys.argv[1:])
