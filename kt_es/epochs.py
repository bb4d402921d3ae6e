"""The decision about an item and the transition from one epoch to the next: pure functions.

Everybody who reads the queue or the log of mutations runs this module: the signer to decide, front
ends and monitors to decide again. The steps are those of docs/DESIGN.md, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from kt_es.crypto.signatures import signed_message
from kt_es.errors import DivergenceError, MalformedError, VerificationError
from kt_es.formats.codec import MAX_TIME, decode, encode, take_array, take_bytes, take_text, take_uint
from kt_es.formats.configs import Config, SignedConfig, check_config_change, check_first_config
from kt_es.formats.entries import Entry, Mutation
from kt_es.formats.erasures import Erasure
from kt_es.formats.heads import MapHead
from kt_es.formats.keys import PublicKey, Signature
from kt_es.formats.queue import MAX_EVENT, Digest, Item, ItemKind, Marker, decode_mutations
from kt_es.formats.records import Verdict

Parsed: TypeAlias = Mutation | Marker | SignedConfig | Erasure | Verdict


class Accepted(Protocol):
    """Index to entry hash of what an epoch has accepted; a dict is one."""

    def get(self, index: bytes, /) -> bytes | None: ...

    def __setitem__(self, index: bytes, entry_hash: bytes, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Current:
    """What the map held at an index at the end of the previous epoch."""

    entry: Entry
    entry_hash: bytes


@dataclass(frozen=True, slots=True)
class Standing:
    """What a finished epoch leaves behind for the next one's decisions, beside the map itself.

    ``config`` is in force for the coming epoch; before the first epoch it is None and ``pinned`` says
    which key the first config has to be signed by. ``timestamp`` is the last head's, ms.
    """

    origin: str
    pinned: PublicKey
    epoch: int = 0
    timestamp: int = 0
    config: SignedConfig | None = None


@dataclass(slots=True)
class Epoch:
    """An epoch in the making: the standing it starts from and what it has accepted so far.

    ``config`` is in force in this epoch; the first config of a directory is so in its own epoch.
    """

    standing: Standing
    accepted: Accepted = field(default_factory=dict[bytes, bytes])
    config: SignedConfig | None = None
    next_config: SignedConfig | None = None
    closed_by: Marker | None = None

    @classmethod
    def after(cls, standing: Standing, accepted: Accepted | None = None) -> Epoch:
        """The epoch after ``standing``; ``accepted`` is where it notes what it accepts, empty."""
        return cls(standing, dict[bytes, bytes]() if accepted is None else accepted, standing.config)

    @property
    def number(self) -> int:
        return self.standing.epoch + 1


def parse(item: Item) -> Parsed:
    """Step 1: what ``item`` is, or the verdict that it gets for not being anything.

    Raises ``MalformedError`` for what no queue can have produced: an intact ``Mutations`` event that is
    recorded as if it could not be taken apart.
    """
    content = item.content
    if item.kind == ItemKind.UNKNOWN:
        return Verdict.UNKNOWN
    if isinstance(content, Digest):
        whole = item.kind == ItemKind.EVENT and content.length <= MAX_EVENT
        return Verdict.MALFORMED if whole else Verdict.OVERSIZE
    try:
        match item.kind:
            case ItemKind.MUTATION:
                return Mutation.decode(content)
            case ItemKind.MARKER:
                return Marker.decode(content)
            case ItemKind.CONFIG:
                return SignedConfig.decode(content)
            case ItemKind.ERASURE:
                return Erasure.decode(content)
            case ItemKind.EVENT:
                decode_mutations(content)
    except MalformedError:
        return Verdict.MALFORMED
    raise MalformedError("record item", "is an intact mutations event")


def decide(epoch: Epoch, parsed: Parsed, current: Current | None, sealed: Verdict | None = None) -> Verdict:
    """The verdict on one item; what it accepts is noted in ``epoch``.

    ``current`` is the entry in the previous epoch's map at the index of the mutation or erasure, None for
    everything else. ``sealed`` is a verdict of one's own, found under one's own signed head: what it
    says of a mutation's signatures is believed, everything else decided again.

    Raises ``DivergenceError`` if the queue does not begin with the config of this directory: such a queue
    belongs to somebody else.
    """
    if epoch.config is None:
        return _begin(epoch, parsed)
    match parsed:
        case Verdict():
            return parsed
        case Mutation():
            return _decide_mutation(epoch, parsed, current, sealed)
        case Marker():
            return _decide_marker(epoch, epoch.config.config, parsed)
        case SignedConfig():
            return _decide_config(epoch, epoch.config, parsed)
        case Erasure():
            return _decide_erasure(epoch, epoch.config.config, parsed, current)


def _begin(epoch: Epoch, parsed: Parsed) -> Verdict:
    standing = epoch.standing
    if not isinstance(parsed, SignedConfig):
        raise DivergenceError(f"the queue does not begin with the config of {standing.origin}")
    try:
        check_first_config(parsed, standing.origin, standing.pinned)
    except VerificationError as error:
        raise DivergenceError(f"the config that begins the queue {error.problem}") from None
    epoch.config = parsed
    return Verdict.CONFIG


def _decide_marker(epoch: Epoch, config: Config, marker: Marker) -> Verdict:
    # Step 2. No clock: only the order of timestamps is decided here.
    if not marker.is_signed_by(config.signer_key, config.origin):
        return Verdict.FOREIGN_MARKER
    if marker.issued_at <= epoch.standing.timestamp:
        return Verdict.STALE_MARKER
    epoch.closed_by = marker
    return Verdict.EPOCH


def _decide_config(epoch: Epoch, in_force: SignedConfig, signed: SignedConfig) -> Verdict:
    # Step 2. A second change in the same epoch follows the first, not the one in force.
    latest = epoch.next_config or in_force
    try:
        check_config_change(signed, latest.config)
    except VerificationError:
        return Verdict.FOREIGN_CONFIG
    epoch.next_config = signed
    return Verdict.CONFIG


def _decide_erasure(epoch: Epoch, config: Config, erasure: Erasure, current: Current | None) -> Verdict:
    """Whether the owner of the account, as of the previous epoch, or the operator signed the erasure.

    Any entry of the account may be named, an earlier one, too: the keys of today decide about the past.
    An erasure changes nothing in the map, so it is judged against no other item.
    """
    if current is None or erasure.key not in (config.signer_key, *current.entry.authorized_keys):
        return Verdict.FOREIGN_ERASURE
    return Verdict.ERASED if erasure.is_signed(epoch.standing.origin) else Verdict.FOREIGN_ERASURE


def _decide_mutation(
    epoch: Epoch, mutation: Mutation, current: Current | None, sealed: Verdict | None
) -> Verdict:
    entry = mutation.entry
    # Step 3: a duplicate across epochs fails.
    if current is not None and current.entry_hash == mutation.entry_hash:
        return Verdict.REPLAY
    # Step 4.
    if current is None:
        follows = entry.version == 1 and entry.previous is None
    else:
        follows = entry.version == current.entry.version + 1 and entry.previous == current.entry_hash
    if not follows:
        return Verdict.STALE
    # Step 5.
    if sealed is Verdict.UNAUTHORIZED or (
        sealed is None and not is_authorized(mutation, current, epoch.standing.origin)
    ):
        return Verdict.UNAUTHORIZED
    # Step 6: within an epoch the same entry succeeds, of two different ones the first wins.
    already = epoch.accepted.get(entry.index)
    if already is not None:
        return Verdict.DUPLICATE if already == mutation.entry_hash else Verdict.CONFLICT
    # Step 7.
    epoch.accepted[entry.index] = mutation.entry_hash
    return Verdict.ACCEPTED


def is_authorized(mutation: Mutation, current: Current | None, origin: str) -> bool:
    """Whether keys of the new and, where there is one, of the current entry signed the new one.

    Every signature has to be a valid one by a key of either entry: nothing unsigned rides along.
    """
    new_keys = mutation.entry.authorized_keys
    old_keys = current.entry.authorized_keys if current is not None else ()
    message = signed_message("entry", origin, mutation.entry_bytes)
    signers = {_signer(signature, (*new_keys, *old_keys), message) for signature in mutation.signatures}
    if None in signers:
        return False
    return not signers.isdisjoint(new_keys) and (current is None or not signers.isdisjoint(old_keys))


def _signer(signature: Signature, keys: Sequence[PublicKey], message: bytes) -> PublicKey | None:
    for key in dict.fromkeys(keys):
        if key.id == signature.key_id and key.verifies(message, signature.value):
            return key
    return None


def close(
    epoch: Epoch, *, map_root: bytes, map_size: int, log_size: int, log_root: bytes, queue_next: int
) -> tuple[MapHead, Standing]:
    """The head of an epoch whose marker has come, and the standing that the next epoch starts from."""
    if epoch.closed_by is None or epoch.config is None:
        raise DivergenceError(f"epoch {epoch.number} has no marker yet")
    origin, timestamp = epoch.standing.origin, epoch.closed_by.issued_at
    head = MapHead(
        origin,
        epoch.number,
        map_root,
        map_size,
        log_size,
        log_root,
        queue_next,
        timestamp,
        epoch.config.config.hash,
    )
    next_config = epoch.next_config or epoch.config
    return head, Standing(origin, epoch.standing.pinned, epoch.number, timestamp, next_config)


def encode_standing(standing: Standing) -> bytes:
    """A standing as a commit keeps it; origin and pinned key are the reader's own."""
    config = None if standing.config is None else standing.config.encode()
    return encode([standing.origin, standing.epoch, standing.timestamp, config])


def decode_standing(data: bytes, origin: str, pinned: PublicKey) -> Standing:
    stored, epoch, timestamp, config = take_array(decode(data, "standing"), "standing", 4)
    if take_text(stored, "standing origin", 1, 255) != origin:
        raise DivergenceError(f"the data directory belongs to {stored!r}, not to {origin}")
    return Standing(
        origin,
        pinned,
        take_uint(epoch, "standing epoch"),
        take_uint(timestamp, "standing timestamp", 0, MAX_TIME),
        None if config is None else SignedConfig.decode(take_bytes(config, "standing config", 1, MAX_EVENT)),
    )
