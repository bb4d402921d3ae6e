"""The decision about an item and the transition from one epoch to the next, as pure functions.

Every reader of the queue or of the log of mutations runs this module. The signer decides with it; front ends
and monitors repeat the decisions. The steps are those of docs/DESIGN.md, section 4.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from kt_es.crypto.signatures import signed_message
from kt_es.errors import AnotherDirectoryError, DivergenceError, MalformedError, VerificationError
from kt_es.formats.codec import MAX_TIME, decode_array, encode, take_bytes, take_text, take_uint
from kt_es.formats.configs import Config, SignedConfig, check_config_change, check_first_config
from kt_es.formats.entries import Entry, Mutation, PublicKey, Signature
from kt_es.formats.erasures import Erasure
from kt_es.formats.facts import fact
from kt_es.formats.heads import MapHead
from kt_es.formats.queue import MAX_EVENT, Digest, Item, ItemKind, Marker, Verdict, decode_mutations

Parsed: TypeAlias = Mutation | Marker | SignedConfig | Erasure | Verdict


class Accepted(Protocol):
    """The entries that an epoch has accepted: entry hashes by index. A dict implements this protocol."""

    def get(self, index: bytes, /) -> bytes | None: ...

    def __setitem__(self, index: bytes, entry_hash: bytes, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Current:
    """The entry at an index at the end of the previous epoch."""

    entry: Entry
    entry_hash: bytes


@dataclass(frozen=True, slots=True)
class Standing:
    """The state after an epoch that the decisions of the next epoch need, in addition to the map.

    ``config`` is in force in the next epoch. It is None before the first epoch, whose config must be signed
    by ``pinned``. ``timestamp`` is the time of the last head in ms.
    """

    origin: str
    pinned: PublicKey
    epoch: int = 0
    timestamp: int = 0
    config: SignedConfig | None = None


@dataclass(slots=True)
class Epoch:
    """An epoch in progress: the standing that it starts from, and everything accepted so far.

    ``config`` is in force in this epoch. The first config of a directory is in force in the epoch that
    accepts it. Any other config (``next_config``) is in force from the next epoch on.
    """

    standing: Standing
    accepted: Accepted = field(default_factory=dict[bytes, bytes])
    config: SignedConfig | None = None
    next_config: SignedConfig | None = None
    closed_by: Marker | None = None

    @classmethod
    def after(cls, standing: Standing, accepted: Accepted | None = None) -> Epoch:
        """Begin the epoch after ``standing``. It adds entries to ``accepted``, which is empty."""
        return cls(standing, dict[bytes, bytes]() if accepted is None else accepted, standing.config)

    @property
    def number(self) -> int:
        return self.standing.epoch + 1


def parse(item: Item) -> Parsed:
    """Parse ``item`` (step 1). Return its value, or a verdict if the item cannot be parsed.

    Raises:
        MalformedError: The item is an intact ``Mutations`` event, recorded as one that could not be split. No
            queue gives such an item.
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


def decide(
    epoch: Epoch,
    parsed: Parsed,
    current: Current | None,
    sealed: Verdict | None = None,
    verified: Container[bytes] = (),
) -> Verdict:
    """Decide about one item. Accepted values are added to ``epoch``.

    Args:
        current: The entry in the map of the previous epoch at the index of the mutation or erasure; None for
            other items or if there is no entry.
        sealed: The verdict that this process itself recorded earlier, under its own signed head. With it the
            signatures of a mutation are not verified again. Everything else is decided again.
        verified: Facts (``formats.facts``) about signatures that were verified already. They save time and
            change no verdict: a signature without a fact is verified here.

    Raises:
        DivergenceError: The queue does not begin with the config of this directory, so it belongs to another
            directory.
    """
    if epoch.config is None:
        return _begin(epoch, parsed)
    match parsed:
        case Verdict():
            return parsed
        case Mutation():
            return _decide_mutation(epoch, parsed, current, sealed, verified)
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
    # Step 2. The decision uses no clock. It depends only on the order of timestamps.
    if not marker.is_signed_by(config.signer_key, config.origin):
        return Verdict.FOREIGN_MARKER
    if marker.issued_at <= epoch.standing.timestamp:
        return Verdict.STALE_MARKER
    epoch.closed_by = marker
    return Verdict.EPOCH


def _decide_config(epoch: Epoch, in_force: SignedConfig, signed: SignedConfig) -> Verdict:
    # Step 2. A second change in the same epoch must follow the first change, not the config in force.
    latest = epoch.next_config or in_force
    try:
        check_config_change(signed, latest.config)
    except VerificationError:
        return Verdict.FOREIGN_CONFIG
    epoch.next_config = signed
    return Verdict.CONFIG


def _decide_erasure(epoch: Epoch, config: Config, erasure: Erasure, current: Current | None) -> Verdict:
    """Decide about an erasure: it must be signed by the owner of the account or by the operator.

    The keys of the owner are those of the entry at the end of the previous epoch. With these keys the owner
    can erase any entry of the account, also an earlier one. An erasure does not change the map, so the
    decision does not depend on other items.
    """
    if current is None or erasure.key not in (config.signer_key, *current.entry.authorized_keys):
        return Verdict.FOREIGN_ERASURE
    return Verdict.ERASED if erasure.is_signed(epoch.standing.origin) else Verdict.FOREIGN_ERASURE


def _decide_mutation(
    epoch: Epoch,
    mutation: Mutation,
    current: Current | None,
    sealed: Verdict | None,
    verified: Container[bytes],
) -> Verdict:
    entry = mutation.entry
    # Step 3: a duplicate of an entry from an earlier epoch fails.
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
        sealed is None and not is_authorized(mutation, current, epoch.standing.origin, verified)
    ):
        return Verdict.UNAUTHORIZED
    # Step 6: within an epoch, a repeated entry succeeds. Of two different entries, the first one wins.
    already = epoch.accepted.get(entry.index)
    if already is not None:
        return Verdict.DUPLICATE if already == mutation.entry_hash else Verdict.CONFLICT
    # Step 7.
    epoch.accepted[entry.index] = mutation.entry_hash
    return Verdict.ACCEPTED


def is_authorized(
    mutation: Mutation, current: Current | None, origin: str, verified: Container[bytes] = ()
) -> bool:
    """Return whether the mutation is authorized: signed by a key of the new entry and by one of ``current``.

    If ``current`` is None, a key of the new entry is sufficient. Every signature must be valid and by a key
    of one of the two entries; a single other signature makes the mutation unauthorized. Signatures with a
    fact in ``verified`` are not verified again.
    """
    new_keys = mutation.entry.authorized_keys
    old_keys = current.entry.authorized_keys if current is not None else ()
    keys = new_keys if old_keys in ((), new_keys) else tuple(dict.fromkeys((*new_keys, *old_keys)))
    signers = {_signer(mutation, signature, keys, origin, verified) for signature in mutation.signatures}
    if None in signers:
        return False
    return not signers.isdisjoint(new_keys) and (current is None or not signers.isdisjoint(old_keys))


def _signer(
    mutation: Mutation,
    signature: Signature,
    keys: Sequence[PublicKey],
    origin: str,
    verified: Container[bytes],
) -> PublicKey | None:
    for key in keys:
        if fact(key, signature, mutation.entry_hash, origin) in verified:
            return key
        if key.id == signature.key_id:
            message = signed_message("entry", origin, mutation.entry_bytes)
            if key.verifies(message, signature.value):
                return key
    return None


def close(
    epoch: Epoch, *, map_root: bytes, map_size: int, log_size: int, log_root: bytes, queue_next: int
) -> tuple[MapHead, Standing]:
    """Return the head of an epoch that a marker has closed, and the standing for the next epoch.

    Raises ``DivergenceError``.
    """
    if epoch.closed_by is None or epoch.config is None:
        raise DivergenceError(f"epoch {epoch.number} has no marker yet")
    origin, timestamp, config = epoch.standing.origin, epoch.closed_by.issued_at, epoch.config.config.hash
    head = MapHead(
        origin, epoch.number, map_root, map_size, log_size, log_root, queue_next, timestamp, config
    )
    next_config = epoch.next_config or epoch.config
    return head, Standing(origin, epoch.standing.pinned, epoch.number, timestamp, next_config)


def encode_standing(standing: Standing) -> bytes:
    """Encode a standing for storage. The pinned key is omitted, because ``decode_standing`` is given it."""
    config = None if standing.config is None else standing.config.encode()
    return encode([standing.origin, standing.epoch, standing.timestamp, config])


def decode_standing(data: bytes, origin: str, pinned: PublicKey) -> Standing:
    stored, epoch, timestamp, config = decode_array(data, "standing", 4)
    if take_text(stored, "standing origin", 1, 255) != origin:
        raise AnotherDirectoryError(f"the stored state belongs to {stored!r}, not to {origin}")
    return Standing(
        origin,
        pinned,
        take_uint(epoch, "standing epoch"),
        take_uint(timestamp, "standing timestamp", 0, MAX_TIME),
        None if config is None else SignedConfig.decode(take_bytes(config, "standing config", 1, MAX_EVENT)),
    )
