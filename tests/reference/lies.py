"""Lies of a shared store about the directory of ``told``: what somebody might make of its rows."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.formats.entries import Mutation
from kt_es.formats.erasures import Erasure, ErasureReason
from kt_es.formats.heads import HeadEvent
from kt_es.formats.notes import Note, parse_note, sign_note
from kt_es.formats.queue import Item, ItemKind, Record, Verdict
from kt_es.ledger.rows import Committed
from kt_es.ledger.store import Change
from kt_es.ledger.tables import HEADS_LOG, MUTATIONS_LOG
from kt_es.merkle.log import NodeId
from kt_es.merkle.pages import LEAF_SIZE, decode_page, encode_page, version_in
from tests import builders as b
from tests.reference.forgeries import another_head, forged_page
from tests.reference.frontends import Front
from tests.reference.sharing import Replicas
from tests.reference.true_answers import NEWEST, ORIGINAL, TRUTH, answers

Rows = dict[bytes, bytes]
Lie = Callable[[Replicas], list[Change]]
OTHER_ROOT = {"map_root": b.seed("root")}


def rows(family: str, change: Callable[[bytes, bytes, Rows], bytes | None]) -> Lie:
    """Every row of ``family`` with what ``change`` makes of its key, its value and all rows."""

    def lie(replicas: Replicas) -> list[Change]:
        there = replicas.rows(family)
        made = [(family, key, change(key, value, there)) for key, value in there.items()]
        return [one for one in made if one[2] != there[one[1]]]

    return lie


def gone(*_: object) -> None:
    return None


def garbage(_key: bytes, value: bytes, _rows: Rows) -> bytes:
    return value[::-1] or b"?"


def root_key(replicas: Replicas, epoch: int) -> bytes:
    version = epoch.to_bytes(5)
    (key,) = (key for key in replicas.rows("pages") if key[0] == 0 and version_in(key) == version)
    return key


def old_root(replicas: Replicas) -> list[Change]:
    """The root page of an earlier epoch in the place of the newest."""
    new, old = root_key(replicas, NEWEST), root_key(replicas, 1)
    slots = decode_page(old, replicas.majority.get("pages", old))
    return [("pages", new, encode_page(new, slots))]


def later_page(replicas: Replicas) -> list[Change]:
    """Each page below the root under the version of the newest epoch, and not under its own."""
    changes: list[Change] = []
    for key, value in replicas.rows("pages").items():
        if key[0] > 0:
            moved = key[:-13] + NEWEST.to_bytes(5) + key[-8:]
            changes += [("pages", key, None), ("pages", moved, encode_page(moved, decode_page(key, value)))]
    return changes


def with_state(change: Callable[[Committed], Committed]) -> Lie:
    def lie(replicas: Replicas) -> list[Change]:
        (key,) = (key for key in replicas.rows("states") if key[:8] == NEWEST.to_bytes(8))
        state = Committed.decode(replicas.rows("states")[key], b.ORIGIN, b.SIGNER_KEY)
        return [("states", key, change(state).encode())]

    return lie


def state_of(epoch: int) -> Lie:
    def lie(replicas: Replicas) -> list[Change]:
        states = {int.from_bytes(key[:8]): (key, value) for key, value in replicas.rows("states").items()}
        return [("states", states[NEWEST][0], states[epoch][1])]

    return lie


def nodes_of(log: bytes, level: int, value: bytes | None) -> Lie:
    return rows("nodes", lambda key, old, _: value if (key[:1], key[1]) == (log, level) else old)


def other_checkpoints(*names: str) -> Callable[[bytes, bytes, Rows], bytes]:
    """Checkpoints that the directory has signed in the epoch after."""

    def change(key: bytes, value: bytes, there: Rows) -> bytes:
        other = HeadEvent.decode(next_row(key, value, there))
        changed: dict[str, Any] = {name: getattr(other, name) for name in names}
        return replace(HeadEvent.decode(value), **changed).encode()

    return change


def swapped_checkpoints(_key: bytes, value: bytes, _rows: Rows) -> bytes:
    event = HeadEvent.decode(value)
    return HeadEvent(event.smh_bytes, event.mutations_checkpoint, event.heads_checkpoint).encode()


def checkpoint(name: str, change: Callable[[Note], str]) -> Callable[[bytes, bytes, Rows], bytes]:
    """What ``change`` makes of one of the two checkpoints."""

    def changed(_key: bytes, value: bytes, _rows: Rows) -> bytes:
        event = HeadEvent.decode(value)
        made: dict[str, Any] = {name: change(parse_note(getattr(event, name)))}
        return replace(event, **made).encode()

    return changed


def unsigned(note: Note) -> str:
    signed = replace(note.signatures[0], signature=note.signatures[0].signature[::-1])
    return replace(note, signatures=(signed,)).encode()


def by_stranger(note: Note) -> str:
    return sign_note(note.text, note.signatures[0].name, b.private_key("eve"))


def next_row(key: bytes, _value: bytes, there: Rows) -> bytes:
    """The row of another key."""
    keys = sorted(there)
    return there[keys[(keys.index(key) + 1) % len(keys)]]


def moved_entry(replicas: Replicas) -> list[Change]:
    """Each entry under the epoch after its own."""
    changes: list[Change] = []
    for key, value in replicas.rows("entries").items():
        moved = key[:32] + (int.from_bytes(key[32:40]) + 1).to_bytes(8) + key[40:]
        changes += [("entries", key, None), ("entries", moved, value)]
    return changes


def older_entries_moved(replicas: Replicas) -> list[Change]:
    """Each entry but the newest of its index under the epoch after its own."""
    newest = {key[:32]: key for key in sorted(replicas.rows("entries"))}
    changes = moved_entry(replicas)
    pairs = zip(changes[::2], changes[1::2], strict=True)
    return [change for pair in pairs if pair[0][1] not in newest.values() for change in pair]


def entries(change: Callable[[Mutation], Mutation]) -> Lie:
    return rows("entries", lambda _key, value, _: value[:8] + change(Mutation.decode(value[8:])).encode())


def bad_signatures(of: Mutation) -> Mutation:
    signed = tuple(replace(one, value=one.value[:-1] + bytes([one.value[-1] ^ 1])) for one in of.signatures)
    return replace(of, signatures=signed)


def without(at: int) -> Callable[[Mutation], Mutation]:
    """Take off the signature number ``at``, where there is more than one."""

    def change(of: Mutation) -> Mutation:
        kept = list(of.signatures)
        del kept[at]
        return replace(of, signatures=tuple(kept) or of.signatures)

    return change


def other_key_ids(of: Mutation) -> Mutation:
    return replace(of, signatures=tuple(replace(one, key_id=b.seed("id")[:8]) for one in of.signatures))


def stranger_signed(of: Mutation) -> Mutation:
    return Mutation.sign(of.entry, b.ORIGIN, [b.private_key("eve")])


def stranger_signed_too(of: Mutation) -> Mutation:
    return replace(of, signatures=(*of.signatures, *stranger_signed(of).signatures))


def another_sequence(_key: bytes, value: bytes, _rows: Rows) -> bytes:
    return (int.from_bytes(value[:8]) ^ 1).to_bytes(8) + value[8:]


def later_leaves(replicas: Replicas) -> list[Change]:
    """Each entry under the epoch after its own, as its leaf says, too. No hash covers that."""
    changes: list[Change] = []
    for key, value in replicas.rows("pages").items():
        slots = [slot and later(slot) for slot in decode_page(key, value)]
        changes.append(("pages", key, encode_page(key, slots)))
    return [*changes, *moved_entry(replicas)]


def later(slot: bytes) -> bytes:
    return slot[:64] + (int.from_bytes(slot[64:]) + 1).to_bytes(5) if len(slot) == LEAF_SIZE else slot


def wrong_leaves(replicas: Replicas) -> list[Change]:
    """Leaves that name the epoch after that of their entry, where no entry is."""
    return [change for change in later_leaves(replicas) if change[0] == "pages"]


def leaves_of_no_epoch(replicas: Replicas) -> list[Change]:
    """Each entry that others followed under epoch 0, as its leaf says, too. No row can be before that."""
    changes: list[Change] = []
    for key, value in replicas.rows("pages").items():
        slots = [
            slot[:64] + bytes(5) if slot and len(slot) == LEAF_SIZE else slot
            for slot in decode_page(key, value)
        ]
        changes.append(("pages", key, encode_page(key, slots)))
    entries = replicas.rows("entries")
    return [*changes, *(("entries", key[:32] + bytes(8) + key[40:], entries[key]) for key in sorted(entries))]


OTHER_CONFIG = b.config(min_interval=9_000, previous=b.signed_config().config.hash)


def config_row(epoch: int, sequence: int, data: bytes) -> Lie:
    return lambda _: [ORIGINAL.ledger.tables.configs.put(epoch, sequence, data)]


def unsigned_configs(_key: bytes, value: bytes, _rows: Rows) -> bytes:
    return value[:-1] + bytes([value[-1] ^ 1])


def erasure_row(
    sequence: int, *, epoch: int = 3, with_node: bool = False, by: Verdict = Verdict.ERASED
) -> Lie:
    """Nobody signed that alice's newest entry is erased."""

    def lie(_: Replicas) -> list[Change]:
        held = b.next_mutation("alice", b.next_mutation("alice", b.mutation("alice")))
        made = Erasure.sign(
            held.entry.index, held.entry_hash, ErasureReason.OWNER, b.ORIGIN, b.private_key("eve")
        )
        record = Record(sequence, Item(5, 0, ItemKind.ERASURE, made.encode()), by)
        tables = ORIGINAL.ledger.tables
        node: list[Change] = []
        if with_node:
            node = tables.nodes.put(MUTATIONS_LOG, [(NodeId(0, sequence), log_leaf_hash(record.encode()))])
        return [tables.erasures.put(made, epoch, sequence, record.encode()), *node]

    return lie


def erasure_of_another(replicas: Replicas) -> list[Change]:
    """The record that erased bob's opening, as if it were about alice's newest entry."""
    ((key, record),) = replicas.rows("erasures").items()
    held = b.next_mutation("alice", b.next_mutation("alice", b.mutation("alice")))
    return [("erasures", held.entry.index + held.entry_hash + key[64:], record)]


def about(key: bytes, value: bytes) -> Lie:
    return lambda _: [("about", key, value)]


def successor_of(state: Committed) -> Committed:
    """The config that was in force before the one in force."""
    return replace(state, standing=replace(state.standing, config=b.signed_config()))


LIES: dict[str, Lie] = {
    "forged pages": rows("pages", lambda k, v, _: forged_page(k, v)),
    "forged pages below": rows("pages", lambda k, v, _: forged_page(k, v) if k[0] else v),
    "damaged pages": rows("pages", garbage),
    "no pages": rows("pages", gone),
    "no pages below": rows("pages", lambda k, v, _: None if k[0] else v),
    "an old root page": old_root,
    "pages of other versions": later_page,
    "no states": rows("states", gone),
    "damaged states": rows("states", garbage),
    "the state of the epoch before": state_of(NEWEST - 1),
    "the state of the first epoch": state_of(1),
    "another root": with_state(lambda s: replace(s, root=replace(s.root, hash=b.seed("root")))),
    "another size": with_state(lambda s: replace(s, root=replace(s.root, size=s.root.size + 1))),
    "another version": with_state(lambda s: replace(s, root=replace(s.root, version=s.root.version - 1))),
    "another epoch": with_state(lambda s: replace(s, standing=replace(s.standing, epoch=NEWEST + 1))),
    "another time": with_state(lambda s: replace(s, standing=replace(s.standing, timestamp=1))),
    "no config in force": with_state(lambda s: replace(s, standing=replace(s.standing, config=None))),
    "another log": with_state(lambda s: replace(s, log=s.heads)),
    "another log of heads": with_state(lambda s: replace(s, heads=s.log)),
    "another end of the queue": with_state(lambda s: replace(s, queue_next=s.queue_next - 1)),
    "fewer records": with_state(lambda s: replace(s, records_next=s.records_next - 1)),
    "more records": with_state(lambda s: replace(s, records_next=s.records_next + 1)),
    **{
        f"{what} {name}, level {level}": nodes_of(log, level, value)
        for what, value in (
            ("no nodes of", None),
            ("wrong nodes of", b.seed("node")),
            ("short nodes of", b"?"),
        )
        for name, log in (("heads", HEADS_LOG), ("records", MUTATIONS_LOG))
        for level in (0, 1, 2)
    },
    "no heads": rows("heads", gone),
    "damaged heads": rows("heads", garbage),
    "heads of other epochs": rows("heads", next_row),
    "other heads that the directory signed": rows("heads", lambda _k, v, _r: another_head(v, OTHER_ROOT)),
    "other heads by a stranger": rows(
        "heads", lambda _k, v, _r: another_head(v, OTHER_ROOT, b.private_key("eve"))
    ),
    "heads with other checkpoints of the heads": rows("heads", other_checkpoints("heads_checkpoint")),
    "heads with other checkpoints of the records": rows("heads", other_checkpoints("mutations_checkpoint")),
    "heads with other checkpoints": rows(
        "heads", other_checkpoints("heads_checkpoint", "mutations_checkpoint")
    ),
    "heads with swapped checkpoints": rows("heads", swapped_checkpoints),
    **{
        f"heads with {what} {name}": rows("heads", checkpoint(name, change))
        for what, change in (("unsigned", unsigned), ("a stranger's", by_stranger))
        for name in ("heads_checkpoint", "mutations_checkpoint")
    },
    "no entries": rows("entries", gone),
    "damaged entries": rows("entries", garbage),
    "entries of others": rows("entries", next_row),
    "entries of other epochs": moved_entry,
    "older entries of other epochs": older_entries_moved,
    "entries and leaves of other epochs": later_leaves,
    "leaves of other epochs": wrong_leaves,
    "entries and leaves of epoch 0": leaves_of_no_epoch,
    "entries whose signatures are wrong": entries(bad_signatures),
    "entries without their last signature": entries(without(-1)),
    "entries without their first signature": entries(without(0)),
    "entries with other key ids": entries(other_key_ids),
    "entries that a stranger signed": entries(stranger_signed),
    "entries that a stranger signed, too": entries(stranger_signed_too),
    "entries of other records": rows("entries", another_sequence),
    "no configs": rows("configs", gone),
    "damaged configs": rows("configs", garbage),
    "configs in other places": rows("configs", next_row),
    "configs whose signatures are wrong": rows("configs", unsigned_configs),
    "one more config that is damaged": config_row(2, 99, b"?"),
    "one more config by a stranger": config_row(
        2, 99, b.signed_config(OTHER_CONFIG, [b.private_key("eve")]).encode()
    ),
    "one more config that was never accepted": config_row(2, 99, b.signed_config(OTHER_CONFIG).encode()),
    "an erasure that nobody signed": erasure_row(3),
    "an erasure in the place of the last record": erasure_row(ORIGINAL.ledger.committed.log.size - 1),
    "an erasure with a node": erasure_row(3, with_node=True),
    "an erasure in the right epoch with a node": erasure_row(2, epoch=1, with_node=True),
    "an erasure that is still to come": erasure_row(ORIGINAL.ledger.committed.log.size + 5),
    "an erasure before all epochs": erasure_row(3, epoch=0),
    "an erasure that was refused": erasure_row(3, by=Verdict.STALE),
    "an erasure of another's opening": erasure_of_another,
    "a damaged erasure": lambda _: [("erasures", b.index("alice") + bytes(48), b"?")],
    "a short key of an erasure": lambda _: [("erasures", b.index("alice"), b"?")],
    "everything is pruned": about(b"oldest", (2**60).to_bytes(8)),
    "nothing more is to prune": about(b"pruned", (2**60).to_bytes(8)),
}


def mend_of(replicas: Replicas, changes: list[Change]) -> list[Change]:
    return [(family, key, replicas.majority.get(family, key)) for family, key, _ in changes]


def are_true(made: Front) -> bool:
    return list(answers(made)) == TRUTH
