"""Random queues, decided by the code and by a plain model: same verdicts, same map, same standing."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kt_es.crypto.hashes import sha256
from kt_es.crypto.vrf import VrfPrivateKey
from kt_es.epochs import Current, Epoch, Standing, close, decide, decode_standing, encode_standing, parse
from kt_es.formats.configs import SignedConfig
from kt_es.formats.entries import Entry, Mutation
from kt_es.formats.erasures import Erasure, ErasureReason
from kt_es.formats.queue import Digest, Item, ItemKind, Verdict
from tests.builders import (
    ORIGIN,
    OTHER_ORIGIN,
    SIGNER_KEY,
    VRF,
    config,
    index,
    item,
    marker,
    private_key,
    public,
    seed,
    signed_config,
)
from tests.reference.model_epochs import Directory, Thing

USERS = ("alice", "bob", "carol")
KEYS = ("red", "green", "blue", "mallory")
SIGNERS = ("signer", "next signer")

users = st.sampled_from(USERS)
some_keys = st.lists(st.sampled_from(KEYS[:3]), min_size=1, max_size=2, unique=True)
some_signers = st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique=True)
mostly_here = st.sampled_from([ORIGIN] * 9 + [OTHER_ORIGIN])
FIRST = signed_config()


@lru_cache(maxsize=4096)
def made_entry(user: str, version: int, previous: bytes | None, keys: tuple[str, ...], profile: str) -> Entry:
    authorized = tuple(public(private_key(f"user {key}")) for key in keys)
    return Entry(index(user), version, seed(f"{user} {profile}"), authorized, previous)


@lru_cache(maxsize=4096)
def made_mutation(entry: Entry, signers: tuple[str, ...], origin: str) -> Mutation:
    return Mutation.sign(entry, origin, [private_key(f"user {key}") for key in signers])


def made_config(follows: bytes | None, key: str, signers: list[str], vrf: str, interval: int) -> SignedConfig:
    chosen = config(
        signer_keys=[private_key(key)],
        vrf_key=VRF.public if vrf == "same" else VrfPrivateKey.from_seed(seed(vrf)).public,
        max_interval=interval,
        previous=follows,
    )
    return signed_config(chosen, [private_key(signer) for signer in signers])


BROKEN = st.sampled_from(
    [
        (Item(0, 0, ItemKind.MUTATION, b"garbage"), "malformed"),
        (Item(0, 0, ItemKind.EVENT, b"garbage"), "malformed"),
        (Item(0, 0, ItemKind.MARKER, b"\x80"), "malformed"),
        (Item(0, 0, ItemKind.CONFIG, FIRST.encode() + b"\x00"), "malformed"),
        (Item(0, 0, ItemKind.ERASURE, b"\x80"), "malformed"),
        (Item(0, 0, ItemKind.ERASURE, Digest(bytes(32), 20_000)), "oversize"),
        (Item(0, 0, ItemKind.MUTATION, Digest(bytes(32), 20_000)), "oversize"),
        (Item(0, 0, ItemKind.EVENT, Digest(bytes(32), 300_000)), "oversize"),
        (Item(0, 0, ItemKind.UNKNOWN, b"whatever"), "unknown"),
    ]
)


class Queue(RuleBasedStateMachine):
    """Puts items into a queue, some of them right, most of them nearly so."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Directory(ORIGIN, self._described(FIRST, ["signer"]))
        self.standing = Standing(ORIGIN, SIGNER_KEY, config=FIRST)
        self.epoch = Epoch.after(self.standing)
        self.map: dict[bytes, Entry] = {}
        self.staged: dict[bytes, Entry] = {}
        self.seen: list[tuple[Mutation, Thing]] = []
        self.configs: list[tuple[SignedConfig, Thing]] = [(FIRST, self.model.config)]

    @staticmethod
    def _described(signed: SignedConfig, signers: list[str]) -> Thing:
        key = next(name for name in SIGNERS if public(private_key(name)) == signed.config.signer_key)
        follows = signed.config.previous
        return {
            "name": signed.config.hash,
            "follows": follows,
            "key": key,
            "signers": signers,
            "fixed": signed.config.vrf_key,
        }

    def decided(self, kind: str, queued: Item, thing: Thing) -> Verdict:
        parsed = parse(queued)
        before: Current | None = None
        if isinstance(parsed, Mutation | Erasure):
            place = parsed.entry.index if isinstance(parsed, Mutation) else parsed.index
            if (held := self.map.get(place)) is not None:
                before = Current(held, sha256(held.encode()))
        verdict = decide(self.epoch, parsed, before)
        assert verdict.label == self.model.decide(kind, thing)
        return verdict

    def change(self, mutation: Mutation, thing: Thing) -> None:
        self.seen.append((mutation, thing))
        if self.decided("change", item(mutation), thing) is Verdict.ACCEPTED:
            self.staged[mutation.entry.index] = mutation.entry

    def proposed(self, data: st.DataObject, user: str, *, right: bool) -> tuple[Entry, Thing]:
        now = self.model.map.get(user)
        version = 1 if now is None else now["version"] + 1
        previous = None if now is None else now["name"]
        if not right:
            names = [thing["name"] for _, thing in self.seen if thing["user"] == user]
            version = max(1, version + data.draw(st.sampled_from([-1, 0, 0, 1])))
            previous = data.draw(st.sampled_from([previous, previous, None, *names[-2:]]))
        keys = tuple(data.draw(some_keys))
        entry = made_entry(user, version, previous, keys, data.draw(st.sampled_from("ab")))
        name = sha256(entry.encode())
        return entry, {"user": user, "version": version, "previous": previous, "keys": keys, "name": name}

    @rule(user=users, data=st.data())
    def proper_change(self, user: str, data: st.DataObject) -> None:
        entry, thing = self.proposed(data, user, right=True)
        now = self.model.map.get(user)
        signers = (thing["keys"][0],) if now is None else tuple({thing["keys"][0], now["keys"][0]})
        self.change(made_mutation(entry, signers, ORIGIN), thing | {"signers": signers, "directory": ORIGIN})

    @rule(user=users, signers=some_signers, origin=mostly_here, data=st.data())
    def any_change(self, user: str, signers: list[str], origin: str, data: st.DataObject) -> None:
        entry, thing = self.proposed(data, user, right=data.draw(st.booleans()))
        self.change(
            made_mutation(entry, tuple(signers), origin), thing | {"signers": signers, "directory": origin}
        )

    @rule(data=st.data())
    def change_seen_before(self, data: st.DataObject) -> None:
        if self.seen:
            self.change(*data.draw(st.sampled_from(self.seen[-6:])))

    @rule(later=st.integers(-1, 3), signer=st.sampled_from(SIGNERS), origin=mostly_here)
    def any_marker(self, later: int, signer: str, origin: str) -> None:
        self._mark(max(0, self.model.last_time + later), signer, origin)

    @rule()
    def proper_marker(self) -> None:
        self._mark(self.model.last_time + 1, self.model.config["key"], ORIGIN)

    def _mark(self, time: int, signer: str, origin: str) -> None:
        queued = item(marker(time, key=private_key(signer), origin=origin))
        thing = {"time": time, "signer": signer, "directory": origin}
        if self.decided("marker", queued, thing) is not Verdict.EPOCH:
            return
        self.map |= self.staged
        self.staged = {}
        head, self.standing = close(
            self.epoch,
            map_root=bytes(32),
            map_size=len(self.map),
            log_size=1,
            log_root=bytes(32),
            queue_next=1,
        )
        assert (head.epoch, head.timestamp) == (self.model.epoch, time)
        self.standing = decode_standing(encode_standing(self.standing), ORIGIN, SIGNER_KEY)
        self.epoch = Epoch.after(self.standing)

    @rule(
        back=st.sampled_from([0, 0, 0, 1, 2]),
        key=st.sampled_from(SIGNERS),
        signers=st.lists(st.sampled_from(SIGNERS), min_size=1, max_size=2, unique=True),
        vrf=st.sampled_from(["same"] * 5 + ["other"]),
        interval=st.integers(60_000, 60_002),
    )
    def any_config(self, back: int, key: str, signers: list[str], vrf: str, interval: int) -> None:
        latest = self.model.coming_config or self.model.config
        follows = [latest["name"], latest["follows"], None][back]
        signed = made_config(follows, key, signers, vrf, interval)
        thing = self._described(signed, signers)
        self.configs.append((signed, thing))
        self.decided("config", item(signed), thing)

    @rule(data=st.data())
    def config_seen_before(self, data: st.DataObject) -> None:
        signed, thing = data.draw(st.sampled_from(self.configs[-5:]))
        self.decided("config", item(signed), thing)

    @rule(
        user=users, signer=st.sampled_from((*KEYS, *SIGNERS)), named=st.binary(max_size=1), origin=mostly_here
    )
    def any_erasure(self, user: str, signer: str, named: bytes, origin: str) -> None:
        key = private_key(signer if signer in SIGNERS else f"user {signer}")
        erasure = Erasure.sign(index(user), sha256(named), ErasureReason.OWNER, origin, key)
        queued = Item(0, 0, ItemKind.ERASURE, erasure.encode())
        self.decided("erasure", queued, {"user": user, "signer": signer, "directory": origin})

    @rule(broken=BROKEN)
    def broken_item(self, broken: tuple[Item, str]) -> None:
        queued, verdict = broken
        self.decided("broken", queued, {"broken": verdict})

    @invariant()
    def both_hold_the_same(self) -> None:
        assert {index(user): thing["version"] for user, thing in self.model.map.items()} == {
            place: entry.version for place, entry in self.map.items()
        }
        assert {index(user): thing["name"] for user, thing in self.model.taken.items()} == self.epoch.accepted
        assert self.standing.config is not None
        assert self.standing.config.config.hash == self.model.config["name"]
        assert (self.standing.epoch, self.standing.timestamp) == (self.model.epoch, self.model.last_time)


Queue.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestQueue: Callable[..., Any] = Queue.TestCase
