"""The file of the VRF's private key: 32 secret bytes as 64 hexadecimal digits and a newline."""

from __future__ import annotations

import re
from pathlib import Path

from kt_es.crypto.vrf import VrfPrivateKey
from kt_es.errors import ConfigError

_SEED = re.compile(r"[0-9a-f]{64}\n?")


def load_vrf_key(path: Path) -> VrfPrivateKey:
    """The key in ``path``; ``ConfigError`` says what is wrong with it."""
    try:
        text = path.read_text("ascii")
    except OSError as error:
        raise ConfigError(f"VRF key {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        text = ""
    if not _SEED.fullmatch(text):
        raise ConfigError(f"VRF key {path}: must hold 64 hexadecimal digits")
    return VrfPrivateKey.from_seed(bytes.fromhex(text.strip()))
