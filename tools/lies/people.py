"""Keys, profiles and signed mutations, all derived from names, so that the code of a lie is short."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from kt_es.crypto.hashes import commit, sha256
from kt_es.crypto.signatures import ED25519, PrivateKey
from kt_es.crypto.vrf import VrfPrivateKey, index_of
from kt_es.formats.entries import Entry, Mutation, ProfileKey, PublicKey, encode_profile

ORIGIN = "lies.example.org/people"


def seed(name: str) -> bytes:
    """Return 32 bytes derived from ``name``."""
    return sha256(f"kt-es lies {name}".encode())


@cache
def key(name: str) -> PrivateKey:
    return PrivateKey.from_seed(ED25519, seed(name))


def public(private: PrivateKey) -> PublicKey:
    return PublicKey(private.algorithm, private.public)


SIGNER = key("signer")
SUCCESSOR = key("successor")
STRANGER = key("stranger")
VRF = VrfPrivateKey.from_seed(seed("vrf"))


def label(user: str) -> str:
    return f"{user}@example.org"


@cache
def index(user: str) -> bytes:
    return index_of(VRF.prove(label(user).encode())[0])


def opening(user: str, version: int, tag: str = "") -> bytes:
    return seed(f"opening {user} {version} {tag}")[:16]


def profile(user: str, version: int, tag: str = "", name: str = "laptop") -> bytes:
    """Return the profile of ``user`` in ``version``. Another ``tag`` gives another profile."""
    return encode_profile([ProfileKey(name, "raw", f"{user} {version} {tag}".encode())])


def mutation(
    user: str,
    before: Mutation | None = None,
    *,
    keys: Sequence[PrivateKey] = (),
    by: Sequence[PrivateKey] = (),
    tag: str = "",
    data: bytes | None = None,
    version: int | None = None,
) -> Mutation:
    """Return the signed version of ``user`` after ``before``.

    Args:
        keys: The keys that the entry authorizes, by default the own key of ``user``.
        by: The keys that sign, by default ``keys``.
        data: The profile, by default the result of ``profile``.
    """
    number = version or (1 if before is None else before.entry.version + 1)
    shown = profile(user, number, tag) if data is None else data
    authorized = tuple(keys) or (key(user),)
    entry = Entry(
        index(user),
        number,
        commit(opening(user, number, tag), label(user), number, shown),
        tuple(public(one) for one in authorized),
        None if before is None else before.entry_hash,
    )
    return Mutation.sign(entry, ORIGIN, tuple(by) or authorized)
