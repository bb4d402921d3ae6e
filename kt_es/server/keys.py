"""The file of the VRF's private key: an Ed25519 seed as unencrypted PKCS#8 in PEM, made by ``kt init``."""

from __future__ import annotations

from pathlib import Path

from kt_es.crypto.vrf import VrfPrivateKey
from kt_es.errors import ConfigError, MalformedError


def load_vrf_key(path: Path) -> VrfPrivateKey:
    """The key in ``path``; ``ConfigError`` says what is wrong with it."""
    try:
        return VrfPrivateKey.from_pem(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"VRF key {path}: {error.strerror}") from None
    except MalformedError as error:
        raise ConfigError(f"VRF key {path}: {error.problem}") from None
