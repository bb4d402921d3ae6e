"""Fuzz targets of the whole decision: any bytes in the queue, and programs that write signed queues.

``queue`` takes frames ``u8 event type || u16 length || data``, which follow the config of the directory.
``decision`` takes a program of one-byte operations, each with a few bytes of choices. It compares the
verdicts of the plain model (``tests/reference/model_epochs``) with the verdicts of the code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar

from kt_es.crypto.hashes import sha256
from kt_es.formats.configs import SignedConfig
from kt_es.formats.entries import Entry, Mutation
from kt_es.formats.erasures import Erasure, ErasureReason
from kt_es.formats.queue import (
    CONFIG,
    EPOCH_MARKER,
    ERASURE,
    MAX_EVENT,
    MAX_ITEM,
    MUTATIONS,
    Marker,
    encode_mutations,
    items_of,
)
from tests.builders import (
    ORIGIN,
    OTHER_ORIGIN,
    START,
    VRF,
    config,
    index,
    marker,
    private_key,
    public,
    seed,
    signed_config,
)
from tests.reference.model_epochs import Directory, Thing
from tools.fuzz.decoders import check
from tools.fuzz.signing import SIGNERS, QueueEvent, refuse_foreign, sign_queue

FIRST = signed_config()
EVENT_TYPES = (MUTATIONS, EPOCH_MARKER, CONFIG, "Greeting", ERASURE)
# Enough for every path through an epoch. More steps would only cost time.
MAX_STEPS = 64

_USERS = ("alice", "bob", "carol", "dave")
_KEYS = ("red", "green", "blue", "mallory")
_FAILED = "failed"

T = TypeVar("T")


def queue(data: bytes) -> bool:
    """Check that each item of any queue gets one verdict, and that the signer continues."""
    events = list(_frames(data))[:MAX_STEPS]
    if events and data[0] & 0x80:
        refuse_foreign(events)
        return False
    written = [(CONFIG, FIRST.encode()), *events]
    records = sign_queue(written)
    items = [item for revision, event in enumerate(written) for item in items_of(revision, *event)]
    check([record.item for record in records][: len(items)] == items, "an item has no record, or several")
    return True


def _frames(data: bytes) -> Sequence[QueueEvent]:
    events = []
    while data:
        size = 3 + int.from_bytes(data[1:3])
        events.append((EVENT_TYPES[(data[0] & 7) % len(EVENT_TYPES)], data[3:size]))
        data = data[size:]
    return events


def frame(kind: str, data: bytes) -> bytes:
    """Return the input of ``queue`` for one event."""
    return bytes((EVENT_TYPES.index(kind),)) + len(data).to_bytes(2) + data


def decision(data: bytes) -> bool:
    """Check that the code decides the queue of a program as the plain model does."""
    program = _Program(_Choices(data))
    program.run()
    decided = [record.verdict for record in sign_queue(program.queue)]
    for number, (expected, verdict) in enumerate(zip(program.expected, decided, strict=False)):
        if expected == _FAILED:
            check(not verdict.succeeded, f"item {number}, which is damaged, is {verdict.label}")
        else:
            check(verdict.label == expected, f"item {number} is {verdict.label}, must be {expected}")
    check(len(decided) - len(program.expected) in (0, 1), "an item has no record, or several")
    return True


@dataclass
class _Choices:
    """Makes choices from bytes. After the last byte it chooses 0, the most ordinary choice."""

    data: bytes
    at: int = 0

    @property
    def left(self) -> bool:
        return self.at < len(self.data)

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1] if self.at <= len(self.data) else 0

    def of(self, options: Sequence[T]) -> T:
        return options[self.byte() % len(options)]

    def some(self, options: Sequence[T], ordinary: list[T]) -> list[T]:
        """Choose a subset by a bit mask; ``ordinary`` if the subset is empty."""
        mask = self.byte()
        return [option for bit, option in enumerate(options) if mask >> bit & 1] or ordinary


@dataclass
class _Program:
    choices: _Choices
    queue: list[QueueEvent] = field(default_factory=lambda: [(CONFIG, FIRST.encode())])
    expected: list[str] = field(default_factory=lambda: ["config"])
    configs: list[SignedConfig] = field(default_factory=lambda: [FIRST])
    made: list[tuple[Thing, Mutation]] = field(default_factory=list)
    pack: list[bytes] = field(default_factory=list)
    model: Directory = field(default_factory=lambda: Directory(ORIGIN, _thing(FIRST, ["signer"])))

    def run(self) -> None:
        operations = (
            self._change,
            self._marker,
            self._again,
            self._damaged,
            self._config,
            self._broken,
            self._flush,
            self._erasure,
        )
        for _ in range(MAX_STEPS):
            if not self.choices.left:
                break
            self.choices.of(operations)()
        self._flush()

    def _flush(self) -> None:
        """Put the collected mutations into one event."""
        if self.pack:
            self.queue.append((MUTATIONS, encode_mutations(self.pack)))
            self.pack = []

    def _put(self, kind: str, data: bytes, expected: str) -> None:
        self._flush()
        self.queue.append((kind, data))
        self.expected.append(expected)

    def _change(self) -> None:
        choices, user = self.choices, self.choices.of(_USERS)
        now = self.model.map.get(user)
        version = max(1, (now["version"] if now else 0) + choices.of((1, 1, 0, 2)))
        mentioned = [
            now["name"] if now else None,
            None,
            seed("nothing"),
            *(made["name"] for made, _ in self.made),
        ]
        previous = choices.of(mentioned)
        keys = choices.some(_KEYS[:3], list(now["keys"]) if now else ["red"])
        signers = choices.some(_KEYS, list(dict.fromkeys((keys[0], now["keys"][0] if now else keys[0]))))
        directory = choices.of((ORIGIN,) * 7 + (OTHER_ORIGIN,))
        content = choices.of(("a", "b", "c"))
        mutation = _mutation(user, version, previous, tuple(keys), tuple(signers), directory, content)
        thing = {
            "user": user,
            "version": version,
            "previous": previous,
            "keys": keys,
            "signers": set(signers),
            "directory": directory,
            "name": mutation.entry_hash,
        }
        self.made.append((thing, mutation))
        self._submit(thing, mutation)

    def _erasure(self) -> None:
        choices, user = self.choices, self.choices.of(_USERS)
        signer = choices.of(("signer", *_KEYS))
        directory = choices.of((ORIGIN,) * 7 + (OTHER_ORIGIN,))
        named = choices.of([seed("nothing"), *(made["name"] for made, _ in self.made)])
        key = private_key(signer if signer == "signer" else f"user {signer}")
        erasure = Erasure.sign(index(user), named, choices.of(list(ErasureReason)), directory, key)
        thing = {"user": user, "signer": signer, "directory": directory}
        self._put(ERASURE, erasure.encode(), self.model.decide("erasure", thing))

    def _submit(self, thing: Thing, mutation: Mutation) -> None:
        self._pack(mutation.encode(), self.model.decide("change", thing))

    def _pack(self, data: bytes, expected: str) -> None:
        self.pack.append(data)
        self.expected.append(expected)
        # One more mutation could make the event too large.
        if len(self.pack) * MAX_ITEM > MAX_EVENT // 2:
            self._flush()

    def _again(self) -> None:
        if self.made:
            self._submit(*self.choices.of(self.made))

    def _damaged(self) -> None:
        """Add an earlier mutation with one changed bit. Whatever it has become, it takes no effect."""
        if not self.made:
            return
        data = bytearray(self.choices.of(self.made)[1].encode())
        at = (self.choices.byte() << 8 | self.choices.byte()) % len(data)
        data[at] ^= 1 << (self.choices.byte() & 7)
        self._pack(bytes(data), _FAILED)

    def _marker(self) -> None:
        signer = self.choices.of((self.model.config["key"], "signer", "next signer", "mallory"))
        directory = self.choices.of((ORIGIN,) * 7 + (OTHER_ORIGIN,))
        time = self.model.last_time + self.choices.of((1, 1_000, 0, 3, 2**40)) or START
        made = _marker(time, signer, directory)
        thing = {"signer": signer, "directory": directory, "time": time}
        self._put(EPOCH_MARKER, made.encode(), self.model.decide("marker", thing))

    def _config(self) -> None:
        latest = self.model.coming_config or self.model.config
        follows = self.choices.of((latest["name"], None, *(made.config.hash for made in self.configs)))
        key = self.choices.of(("signer", "next signer"))
        signers = self.choices.some(("signer", "next signer", "mallory"), sorted({latest["key"], key}))
        policy = self.choices.of(("email",) * 7 + ("text",))
        interval = 10_000 + self.choices.byte()
        made = _config(follows, key, tuple(signers), policy, interval)
        self.configs.append(made)
        self._put(CONFIG, made.encode(), self.model.decide("config", _thing(made, signers)))

    def _broken(self) -> None:
        kind, data, verdict = self.choices.of(_BROKEN)
        if kind == "mutation":
            self._pack(data, verdict)
        else:
            self._put(kind, data, verdict)


_BROKEN = (
    ("mutation", b"", "malformed"),
    ("mutation", b"garbage", "malformed"),
    ("mutation", bytes(16_385), "oversize"),
    (MUTATIONS, b"", "malformed"),
    (MUTATIONS, b"\x80", "malformed"),
    (MUTATIONS, bytes(16_385), "malformed"),
    (MUTATIONS, bytes(262_145), "oversize"),
    (EPOCH_MARKER, b"\x80", "malformed"),
    (EPOCH_MARKER, bytes(16_385), "oversize"),
    (CONFIG, FIRST.encode() + b"\0", "malformed"),
    (CONFIG, bytes(20_000), "oversize"),
    ("Greeting", b"hello", "unknown"),
    ("", bytes(20_000), "unknown"),
)


def _thing(made: SignedConfig, signers: Sequence[str]) -> Thing:
    by_public = {key.public: name for name, key in SIGNERS.items()}
    return {
        "name": made.config.hash,
        "follows": made.config.previous,
        "key": by_public[made.config.signer_key.raw],
        "signers": set(signers),
        "fixed": (made.config.vrf_key, made.config.label_policy),
    }


@cache
def _mutation(
    user: str,
    version: int,
    previous: bytes | None,
    keys: tuple[str, ...],
    signers: tuple[str, ...],
    directory: str,
    content: str,
) -> Mutation:
    authorized = tuple(public(private_key(f"user {key}")) for key in keys)
    entry = Entry(_index(user), version, sha256(content.encode()), authorized, previous)
    return Mutation.sign(entry, directory, [private_key(f"user {key}") for key in signers])


@cache
def _index(user: str) -> bytes:
    return index(user)


@cache
def _marker(time: int, signer: str, directory: str) -> Marker:
    return marker(time, key=private_key(signer), origin=directory)


@cache
def _config(
    follows: bytes | None, key: str, signers: tuple[str, ...], policy: str, interval: int
) -> SignedConfig:
    made = config(
        signer_keys=[private_key(key)],
        vrf_key=VRF.public,
        label_policy=policy,
        max_interval=interval,
        previous=follows,
    )
    return signed_config(made, [private_key(signer) for signer in signers])
