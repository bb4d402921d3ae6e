"""Labels to indices: the VRF's private key from its file, and a bounded cache of the VRF's proofs."""

from __future__ import annotations

import threading
from collections import OrderedDict

from kt_es.crypto.vrf import VrfPrivateKey, index_of

CACHED = 16_384
_MAX_PEM = 64 * 1024


class Indexer:
    """Finds the index of a label in the map, with its proof. Safe for threads; it takes about 10 MB."""

    def __init__(self, key: VrfPrivateKey, cached: int = CACHED) -> None:
        self._key = key
        self._cached = cached
        self._lock = threading.Lock()
        self._cache: OrderedDict[str, tuple[bytes, bytes]] = OrderedDict()

    @property
    def public(self) -> bytes:
        """The public key of the VRF, 32 bytes."""
        return self._key.public

    def locate(self, label: str) -> tuple[bytes, bytes]:
        """Index (32 bytes) and VRF proof (80 bytes) of a normalized label."""
        with self._lock:
            found = self._cache.get(label)
            if found is not None:
                self._cache.move_to_end(label)
                return found
        beta, proof = self._key.prove(label.encode())
        made = index_of(beta), proof
        with self._lock:
            self._cache[label] = made
            if len(self._cache) > self._cached:
                self._cache.popitem(last=False)
        return made
