"""Cosigners from names, and notes that they have or have not cosigned."""

from __future__ import annotations

from kt_es.crypto.signatures import PrivateKey
from kt_es.formats.cosignatures import CosignerKey, cosign
from kt_es.formats.heads import Checkpoint, sign_checkpoint
from kt_es.formats.notes import parse_note
from tests import builders as b


class CosigningParty:
    """A witness or monitor whose key is made of its name."""

    def __init__(self, name: str) -> None:
        self.name = f"{name}.example.org"
        self.private: PrivateKey = b.private_key(name)
        self.key = CosignerKey(self.name, self.private.public)

    def line(self, note: str, at: int) -> str:
        """The line by which it cosigns ``note`` at the time ``at``, in seconds."""
        return cosign(parse_note(note).text, self.name, self.private, at)


def signed(log: str, size: int, root: bytes, key: PrivateKey = b.SIGNER) -> str:
    """A checkpoint of one of the directory's logs, which ``key`` has signed."""
    origin = f"{b.ORIGIN}/{log}"
    return sign_checkpoint(Checkpoint(origin, size, root), origin, key)
