"""The file of the VRF's private key: an Ed25519 seed as unencrypted PKCS#8 in PEM, made by ``kt init``."""

from __future__ import annotations

from pathlib import Path

from kt_es.crypto.vrf import VrfPrivateKey
from kt_es.errors import ConfigError, MalformedError
from kt_es.process.files import read_private

_MAX_PEM = 64 * 1024


def load_vrf_key(path: Path) -> VrfPrivateKey:
    """The key in ``path``; ``ConfigError`` says what is wrong with it.

    A file that other users can read is refused: with the key, labels can be tried out against the map.
    """
    pem = read_private(path, "the VRF key", _MAX_PEM)
    try:
        return VrfPrivateKey.from_pem(pem)
    except MalformedError as error:
        raise ConfigError(f"the VRF key {path} cannot be used: {error.problem}") from None
