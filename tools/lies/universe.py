"""One history of a directory, signed as its malicious operator wants.

``put``, ``queue`` and ``epoch`` do by default what an honest signer does. Their arguments are the operator's
changes: another verdict, other fields of a head, another key. ``fork`` makes a second history with the same
past.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.crypto.signatures import PrivateKey
from kt_es.epochs import Current, Epoch, Standing, close, decide, parse
from kt_es.errors import MalformedError
from kt_es.formats.configs import Config, SignedConfig
from kt_es.formats.entries import Mutation, sign
from kt_es.formats.erasures import Erasure, ErasureReason
from kt_es.formats.heads import (
    Checkpoint,
    HeadEvent,
    SignedMapHead,
    heads_origin,
    mutations_origin,
    sign_checkpoint,
)
from kt_es.formats.queue import (
    CONFIG,
    EPOCH_MARKER,
    ERASURE,
    MUTATIONS,
    Item,
    ItemKind,
    Marker,
    Record,
    RecordPacker,
    Verdict,
    encode_mutations,
    items_of,
)
from kt_es.merkle.log import LogState, NodeId, ProofPlan
from tools.lies import people
from tools.lies.people import ORIGIN, SIGNER
from tools.lies.trees import map_root

STEP = 1_000
"""Milliseconds from one epoch to the next, unless an epoch says otherwise."""

BEGIN = 20_000
"""Milliseconds between the begin of a universe and now. Its heads stay fresh for minutes."""

MAX_INTERVAL = 300_000


@dataclass(frozen=True, slots=True)
class PublishedEpoch:
    """One published epoch. ``entries`` is its map, and ``key`` signed its head."""

    smh: SignedMapHead
    event: HeadEvent
    entries: dict[bytes, bytes]
    key: PrivateKey

    @property
    def epoch(self) -> int:
        return self.smh.head.epoch


class Universe:
    """The queue, both logs and the maps of a directory, in memory."""

    def __init__(
        self,
        now: int,
        *,
        max_interval: int = MAX_INTERVAL,
        begin: int = BEGIN,
        signer: PrivateKey = SIGNER,
    ) -> None:
        """Make a directory that began ``begin`` ms before ``now``, under the key ``signer``."""
        self.clock = now - begin
        self.events: list[tuple[str, bytes]] = []
        self.records: list[bytes] = []
        self.record_events: list[bytes] = []
        self.epochs: list[PublishedEpoch] = []
        self.configs: list[SignedConfig] = []
        self.mutations: dict[bytes, Mutation] = {}
        self.private: dict[bytes, tuple[bytes, bytes]] = {}
        self.versions: dict[bytes, tuple[tuple[int, bytes], ...]] = {}
        self.erased: dict[bytes, int] = {}
        self.entries: dict[bytes, bytes] = {}
        self.log = LogState()
        self.heads = LogState()
        self.log_nodes: dict[NodeId, bytes] = {}
        self.head_nodes: dict[NodeId, bytes] = {}
        self._ring = {people.public(one): one for one in (SIGNER, people.SUCCESSOR, people.STRANGER)}
        self._accepted: dict[bytes, bytes] = {}
        self._epoch = Epoch.after(Standing(ORIGIN, people.public(signer)), self._accepted)
        self._packer = RecordPacker(0)
        self.config = Config(
            ORIGIN,
            (people.public(signer),),
            people.VRF.public,
            "email",
            100,
            max_interval,
            max_interval,
            None,
        )
        self.configure(self.config, [signer])

    def fork(self) -> Universe:
        """Return a second history that continues from here. The same keys sign both histories."""
        made = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, list | dict):
                setattr(made, name, copy.copy(value))
        made._epoch = replace(self._epoch, accepted=made._accepted)
        made._packer = copy.deepcopy(self._packer)
        return made

    # The queue

    def queue(self, kind: str, data: bytes, *verdicts: Verdict | None) -> list[Verdict]:
        """Append an event to the queue and decide its items. ``verdicts`` replace the honest verdicts.

        None keeps the honest verdict.
        """
        items = items_of(len(self.events), kind, data)
        self.events.append((kind, data))
        return [self.decide(item, *verdicts[at : at + 1]) for at, item in enumerate(items)]

    def decide(self, item: Item, verdict: Verdict | None = None) -> Verdict:
        """Append the record of ``item`` to the log of mutations. ``verdict`` replaces the honest verdict."""
        decided = self._honest(item, verdict)
        thing = _parsed(item)
        if verdict is not None and verdict is not decided:
            self._force(thing, verdict)
            decided = verdict
        if isinstance(thing, SignedConfig) and decided is Verdict.CONFIG:
            self.configs.append(thing)
        if isinstance(thing, Erasure) and decided is Verdict.ERASED:
            self.erased[thing.entry_hash] = len(self.records)
        self.write(Record(len(self.records), item, decided))
        return decided

    def write(self, record: Record) -> None:
        """Append a record unchanged."""
        data = record.encode()
        self.records.append(data)
        self.log, created = self.log.append([log_leaf_hash(data)])
        self.log_nodes.update(created)
        self.record_events += self._packer.add(data, closes_epoch=record.closes_epoch)

    def _honest(self, item: Item, verdict: Verdict | None) -> Verdict:
        if item.kind is ItemKind.ERASURE and verdict is not None:
            return verdict
        thing = parse(item)
        current = None
        if isinstance(thing, Mutation | Erasure):
            index = thing.entry.index if isinstance(thing, Mutation) else thing.index
            held = self.entries.get(index)
            current = None if held is None else Current(self.mutations[held].entry, held)
        return decide(self._epoch, thing, current)

    def _force(self, thing: object, verdict: Verdict) -> None:
        """Change the epoch as ``verdict`` does, against the rules."""
        if isinstance(thing, Mutation):
            if verdict is Verdict.ACCEPTED:
                self._accepted[thing.entry.index] = thing.entry_hash
                self.mutations[thing.entry_hash] = thing
            elif self._accepted.get(thing.entry.index) == thing.entry_hash:
                del self._accepted[thing.entry.index]
        if isinstance(thing, Marker) and verdict is Verdict.EPOCH:
            self._epoch.closed_by = thing
        if isinstance(thing, SignedConfig) and verdict is Verdict.CONFIG:
            self._epoch.next_config = thing

    def put(
        self,
        user: str,
        *,
        keys: Sequence[PrivateKey] = (),
        by: Sequence[PrivateKey] = (),
        tag: str = "",
        data: bytes | None = None,
        verdict: Verdict | None = None,
    ) -> Mutation:
        """Append the next version of ``user`` to the queue, with the parameters of ``people.mutation``."""
        made = people.mutation(user, self.current(user), keys=keys, by=by, tag=tag, data=data)
        number = made.entry.version
        shown = people.profile(user, number, tag) if data is None else data
        self.submit(made, people.opening(user, number, tag), shown, verdict)
        return made

    def submit(
        self, made: Mutation, opening: bytes, profile: bytes, verdict: Verdict | None = None
    ) -> Verdict:
        """Append an existing mutation to the queue, and keep its opening and profile."""
        self.mutations.setdefault(made.entry_hash, made)
        self.private[made.entry_hash] = (opening, profile)
        return self.queue(MUTATIONS, encode_mutations([made.encode()]), verdict)[0]

    def plant(self, made: Mutation | None, user: str) -> None:
        """Put ``made`` into the map of the next epoch for ``user`` without a record; None removes the entry.

        No replay accepts such a map. A client sees no records, so it has to detect the lie in another way.
        """
        index = people.index(user)
        self._accepted[index] = b"" if made is None else made.entry_hash
        if made is not None:
            self.mutations[made.entry_hash] = made

    def current(self, user: str) -> Mutation | None:
        """Return the mutation of ``user`` in the latest epoch; None if there is none."""
        held = self.entries.get(people.index(user))
        return None if held is None else self.mutations[held]

    def configure(self, config: Config, keys: Sequence[PrivateKey], verdict: Verdict | None = None) -> None:
        data = config.encode()
        # SignedConfig.sign refuses configs that no reader accepts, but the operator signs anything.
        signed = SignedConfig(config, data, tuple(sign(key, "config", ORIGIN, data) for key in keys))
        self.queue(CONFIG, signed.encode(), verdict)
        if verdict is Verdict.CONFIG:
            self._epoch.next_config = signed

    def rotate(self, new: PrivateKey, by: Sequence[PrivateKey] = (), verdict: Verdict | None = None) -> None:
        """Append a config that makes ``new`` the signer key from the next epoch on."""
        current = self.configs[-1].config
        self._ring[people.public(new)] = new
        config = replace(current, signer_keys=(people.public(new),), previous=current.hash)
        self.configure(config, by or [self._ring[current.signer_key], new], verdict)

    def erase(
        self, made: Mutation, by: PrivateKey, verdict: Verdict = Verdict.ERASED, *, origin: str = ORIGIN
    ) -> None:
        """Append the erasure of the profile of ``made``."""
        erasure = Erasure.sign(made.entry.index, made.entry_hash, ErasureReason.OWNER, origin, by)
        self.queue(ERASURE, erasure.encode(), verdict)

    # Epochs

    def epoch(
        self,
        *,
        at: int | None = None,
        marker_by: PrivateKey | None = None,
        key: PrivateKey | None = None,
        heads_key: PrivateKey | None = None,
        mutations_key: PrivateKey | None = None,
        heads_root: bytes | None = None,
        mutations_root: bytes | None = None,
        **fields: Any,
    ) -> PublishedEpoch:
        """Close the epoch with a marker of time ``at`` (ms) and publish its head.

        ``marker_by``, ``key``, ``heads_key`` and ``mutations_key`` sign the marker, the head and the two
        checkpoints in place of the key in force. ``fields`` replace fields of the head. ``heads_root`` and
        ``mutations_root`` replace the roots in the checkpoints.
        """
        assert self._epoch.config is not None
        in_force = self._ring[self._epoch.config.config.signer_key]
        self.clock = self.clock + STEP if at is None else at
        nonce = people.seed(f"nonce {len(self.events)} {self.clock}")[:16]
        marker = Marker.sign(nonce, self.clock, ORIGIN, marker_by or in_force)
        self.queue(EPOCH_MARKER, marker.encode(), Verdict.EPOCH)
        # The marker closes the epoch even if it breaks the formats, because the operator ignores them.
        self._epoch.closed_by = marker
        return self._publish(key or in_force, heads_key, mutations_key, heads_root, mutations_root, fields)

    def _publish(
        self,
        key: PrivateKey,
        heads_key: PrivateKey | None,
        mutations_key: PrivateKey | None,
        heads_root: bytes | None,
        mutations_root: bytes | None,
        fields: dict[str, Any],
    ) -> PublishedEpoch:
        self._apply()
        head, standing = close(
            self._epoch,
            map_root=map_root(self.entries),
            map_size=len(self.entries),
            log_size=self.log.size,
            log_root=self.log.root(),
            queue_next=len(self.events),
        )
        smh = SignedMapHead.sign(replace(head, **fields), key)
        self.heads, created = self.heads.append([log_leaf_hash(smh.encode())])
        self.head_nodes.update(created)
        of_heads = Checkpoint(heads_origin(ORIGIN), self.heads.size, heads_root or self.heads.root())
        of_log = Checkpoint(mutations_origin(ORIGIN), self.log.size, mutations_root or self.log.root())
        event = HeadEvent(
            smh.encode(),
            sign_checkpoint(of_heads, of_heads.origin, heads_key or key),
            sign_checkpoint(of_log, of_log.origin, mutations_key or key),
        )
        published = PublishedEpoch(smh, event, dict(self.entries), key)
        self.epochs.append(published)
        self._accepted = {}
        self._epoch = Epoch.after(standing, self._accepted)
        return published

    def _apply(self) -> None:
        """Put the accepted entries of the epoch into the map. ``plant`` may also have removed an entry."""
        for index, entry_hash in self._accepted.items():
            if entry_hash:
                self.entries[index] = entry_hash
                self.versions[index] = (*self.versions.get(index, ()), (self._epoch.number, entry_hash))
            else:
                del self.entries[index]

    # Proofs

    def proof(self, plan: ProofPlan, nodes: dict[NodeId, bytes]) -> tuple[bytes, ...]:
        return tuple(plan.proof([nodes[node] for node in plan.nodes]))

    def held(self, epoch: int, index: bytes) -> Mutation | None:
        """Return the mutation that the map of ``epoch`` holds at ``index``; None if there is none."""
        held = self.epochs[epoch - 1].entries.get(index)
        return None if held is None else self.mutations[held]


def _parsed(item: Item) -> object:
    try:
        if item.kind is ItemKind.ERASURE and isinstance(item.content, bytes):
            return Erasure.decode(item.content)
        return parse(item)
    except MalformedError:
        return None
