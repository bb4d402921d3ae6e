"""Deterministic values for tests: everything is derived from names, so every byte is reproducible.

``private_key("alice")`` is always the same key, ``entry("alice")`` always the same entry, and so on. What
a test is about it passes in; the rest has defaults.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kt_es.crypto.hashes import commit, sha256
from kt_es.crypto.signatures import ECDSA_P256, ED25519, PrivateKey
from kt_es.crypto.vrf import VrfPrivateKey, index_of
from kt_es.epochs import Current, Epoch, Standing, decide, parse
from kt_es.formats.configs import Config, SignedConfig
from kt_es.formats.entries import Entry, Mutation, Opening, ProfileKey, PublicKey, encode_profile
from kt_es.formats.erasures import Erasure
from kt_es.formats.heads import (
    Checkpoint,
    HeadEvent,
    MapHead,
    SignedMapHead,
    heads_origin,
    mutations_origin,
    sign_checkpoint,
)
from kt_es.formats.proofs import LookupAnswer, ProofFile
from kt_es.formats.queue import Item, ItemKind, Marker, Record, Verdict, items_of
from kt_es.merkle.verify import Leaf, MapProof

ORIGIN = "kt.example.org/people"
OTHER_ORIGIN = "kt.example.net/others"

# 2024-01-01T00:00:00Z, ms: when the directory of the tests begins.
START = 1_704_067_200_000


def seed(name: str) -> bytes:
    """32 bytes that belong to ``name``."""
    return sha256(f"kt-es test {name}".encode())


def every_changed_byte(good: bytes) -> Iterator[bytes]:
    """``good`` with each byte changed in turn: every single bit of it, and all of them."""
    for at, byte in enumerate(good):
        for mask in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            yield good[:at] + bytes([byte ^ mask]) + good[at + 1 :]


def private_key(name: str, algorithm: int = ED25519) -> PrivateKey:
    return PrivateKey.from_seed(algorithm, seed(name))


def p256_key(name: str) -> PrivateKey:
    return private_key(name, ECDSA_P256)


def public(key: PrivateKey) -> PublicKey:
    return PublicKey(key.algorithm, key.public)


SIGNER = private_key("signer")
SIGNER_KEY = public(SIGNER)
VRF = VrfPrivateKey.from_seed(seed("vrf"))


def label_of(user: str) -> str:
    return f"{user}@example.org"


def index(user: str) -> bytes:
    """The 32-byte place of ``user``'s label in the map of the tests' directory."""
    return index_of(VRF.prove(label_of(user).encode())[0])


def profile(user: str, version: int = 1) -> bytes:
    return encode_profile([ProfileKey("laptop", "raw", f"{user} {version}".encode())])


def opening(user: str, version: int = 1) -> bytes:
    return seed(f"opening {user} {version}")[:16]


def commitment(user: str, version: int = 1) -> bytes:
    return commit(opening(user, version), label_of(user), version, profile(user, version))


def entry(
    user: str,
    version: int = 1,
    previous: bytes | None = None,
    *,
    keys: Sequence[PrivateKey] | None = None,
    commits_to: bytes | None = None,
) -> Entry:
    """``user``'s entry; by default its one authorized key is ``private_key(user)``."""
    authorized = [private_key(user)] if keys is None else keys
    return Entry(
        index(user),
        version,
        commitment(user, version) if commits_to is None else commits_to,
        tuple(public(key) for key in authorized),
        previous,
    )


def mutation(
    user: str,
    version: int = 1,
    previous: bytes | None = None,
    *,
    keys: Sequence[PrivateKey] | None = None,
    signed_by: Sequence[PrivateKey] | None = None,
    origin: str = ORIGIN,
    commits_to: bytes | None = None,
) -> Mutation:
    """A signed entry. ``keys`` are those of the entry, ``signed_by`` (default: the same) its signers."""
    authorized = [private_key(user)] if keys is None else list(keys)
    made = entry(user, version, previous, keys=authorized, commits_to=commits_to)
    return Mutation.sign(made, origin, authorized if signed_by is None else signed_by)


def next_mutation(user: str, current: Mutation, **options: object) -> Mutation:
    """The mutation that properly follows ``current``; options as for ``mutation``."""
    return mutation(user, current.entry.version + 1, current.entry_hash, **options)  # type: ignore[arg-type]


def current(of: Mutation) -> Current:
    """What the map holds at the index once ``of`` was accepted."""
    return Current(of.entry, of.entry_hash)


def config(
    origin: str = ORIGIN,
    *,
    signer_keys: Sequence[PrivateKey] = (SIGNER,),
    vrf_key: bytes = VRF.public,
    label_policy: str = "email",
    min_interval: int = 1_000,
    max_interval: int = 60_000,
    max_merge_delay: int = 120_000,
    previous: bytes | None = None,
) -> Config:
    keys = tuple(public(key) for key in signer_keys)
    return Config(origin, keys, vrf_key, label_policy, min_interval, max_interval, max_merge_delay, previous)


def signed_config(made: Config | None = None, keys: Sequence[PrivateKey] = (SIGNER,)) -> SignedConfig:
    """The first config of the tests' directory, or ``made``, signed by ``keys``."""
    return SignedConfig.sign(config() if made is None else made, keys)


def marker(issued_at: int = START, *, key: PrivateKey = SIGNER, origin: str = ORIGIN) -> Marker:
    return Marker.sign(seed(f"nonce {issued_at}")[:16], issued_at, origin, key)


def item(parsed: Mutation | Marker | SignedConfig | Erasure, revision: int = 0, position: int = 0) -> Item:
    """The queue item that carries ``parsed``."""
    kinds = {
        Mutation: ItemKind.MUTATION,
        Marker: ItemKind.MARKER,
        SignedConfig: ItemKind.CONFIG,
        Erasure: ItemKind.ERASURE,
    }
    return Item(revision, position, kinds[type(parsed)], parsed.encode())


def event_items(revision: int, event_type: str, data: bytes) -> list[Item]:
    return items_of(revision, event_type, data)


def new_epoch(standing: Standing | None = None) -> Epoch:
    """An epoch to decide in: the first after the config, or the one after ``standing``."""
    if standing is not None:
        return Epoch.after(standing)
    return Epoch.after(Standing(ORIGIN, SIGNER_KEY, config=signed_config()))


def accepted(epoch: Epoch) -> dict[bytes, bytes]:
    """What an epoch of ``new_epoch`` has accepted so far."""
    assert isinstance(epoch.accepted, dict)
    return epoch.accepted


def verdict_of(epoch: Epoch, decided: Item, before: Mutation | None = None) -> Verdict:
    """The verdict on an item where the map held ``before`` at its index."""
    return decide(epoch, parse(decided), None if before is None else current(before))


def record(sequence: int, of: Item, verdict: Verdict = Verdict.ACCEPTED) -> Record:
    return Record(sequence, of, verdict)


def map_head(
    epoch: int = 1,
    *,
    origin: str = ORIGIN,
    map_root: bytes | None = None,
    map_size: int = 1,
    log_size: int = 3,
    log_root: bytes | None = None,
    queue_next: int = 3,
    timestamp: int | None = None,
    config_hash: bytes | None = None,
) -> MapHead:
    return MapHead(
        origin,
        epoch,
        seed(f"map root {epoch}") if map_root is None else map_root,
        map_size,
        log_size,
        seed(f"log root {epoch}") if log_root is None else log_root,
        queue_next,
        START + 1_000 * epoch if timestamp is None else timestamp,
        config().hash if config_hash is None else config_hash,
    )


def signed_map_head(head: MapHead | None = None, key: PrivateKey = SIGNER) -> SignedMapHead:
    return SignedMapHead.sign(map_head() if head is None else head, key)


def checkpoint(log_origin: str, size: int = 1, root: bytes | None = None, key: PrivateKey = SIGNER) -> str:
    """A signed checkpoint of the log ``log_origin``; its root is made up unless given."""
    made = Checkpoint(log_origin, size, seed(f"root {log_origin} {size}") if root is None else root)
    return sign_checkpoint(made, log_origin, key)


def head_event(smh: SignedMapHead | None = None) -> HeadEvent:
    made = signed_map_head() if smh is None else smh
    return HeadEvent(
        made.encode(),
        checkpoint(heads_origin(made.head.origin)),
        checkpoint(mutations_origin(made.head.origin)),
    )


def opening_event(user: str, version: int = 1) -> Opening:
    made = mutation(user, version)
    return Opening(made.entry_hash, opening(user, version), profile(user, version))


def lookup_answer(
    user: str, mutation_: Mutation | None = None, *, other: Leaf | None = None, erased: bool = False
) -> LookupAnswer:
    """An answer of the right shape: its signatures and its VRF proof are true, its roots are made up.

    Without ``mutation_`` it claims absence, with ``other`` as the leaf at the end of the path.
    """
    leaf = other if mutation_ is None else (mutation_.entry.index, mutation_.entry_hash)
    shown = None if mutation_ is None or erased else opening(user, mutation_.entry.version)
    return LookupAnswer(
        checkpoint(heads_origin(ORIGIN)),
        signed_map_head().encode(),
        (seed("heads 0"), seed("heads 1")),
        VRF.prove(label_of(user).encode())[1],
        MapProof((seed("sibling 0"), None, seed("sibling 1")), leaf),
        mutation_,
        shown,
    )


def proof_file(user: str, answer: LookupAnswer | None = None, *, at: int = START) -> ProofFile:
    made = lookup_answer(user, mutation(user)) if answer is None else answer
    shown = None if made.opening is None else profile(user)
    return ProofFile(ORIGIN, label_of(user), (signed_config(),), made, shown, at)
