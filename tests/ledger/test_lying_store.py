"""Lies of a shared store: nobody answers or signs from them, and everything goes on once they are mended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import DivergenceError, EquivocationError, UnavailableError, UnverifiedRowError
from kt_es.eventstore.streams import content_event
from kt_es.formats.erasures import Erasure, ErasureReason
from kt_es.formats.heads import HeadEvent, SignedMapHead
from kt_es.formats.queue import CONFIG, Item, ItemKind, Record, Verdict, decode_records, encode_records
from kt_es.ledger.adoption import Adoption
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.openings import Missing, read_opening
from kt_es.ledger.retention import check_epoch, prune
from kt_es.ledger.rows import Committed
from kt_es.ledger.shared_store import LOCAL
from kt_es.ledger.store import Change
from kt_es.ledger.tables import HEADS_LOG, MUTATIONS_LOG
from kt_es.merkle.log import NodeId
from kt_es.merkle.map import leaf_ref
from kt_es.merkle.pages import LEAF_SIZE, decode_page, encode_page, version_in
from signer.patrol import Patrol
from tests import builders as b
from tests.reference.frontends import Front, front, until
from tests.reference.memory_log import MemoryLog
from tests.reference.sharing import Replicas, SharedStreams, ledger_of, store_of
from tests.reference.signing import LIMITS, NAMES, check_logs, data_of, new_signer

USERS = [f"user{number}" for number in range(40)]
ALICE, BOB = b.label_of("alice"), b.label_of("bob")
NEWEST = 5
AWAY = "the shared store of this directory cannot be read; try again later"


def build() -> SharedStreams:
    """Alice has a version in each of the epochs 1 to 3. An opening of bob is erased, a config is replaced."""
    streams = SharedStreams()
    bob = streams.put_user("bob")
    streams.put(*map(b.mutation, USERS))
    alice = streams.put_user("alice")
    streams.epoch()
    alice = streams.put_user("alice", alice)
    streams.epoch()
    streams.put_user("alice", alice)
    streams.erase(bob)
    streams.epoch()
    successor = b.config(min_interval=2_000, previous=b.signed_config().config.hash)
    streams.queue(CONFIG, b.signed_config(successor).encode())
    streams.epoch()
    streams.put(b.next_mutation(USERS[0], b.mutation(USERS[0])))
    streams.epoch()
    return streams


TOLD = build()


def copied() -> tuple[MemoryLog, Replicas]:
    log, replicas = MemoryLog(), Replicas()
    for event in TOLD.log._all:  # type: ignore[attr-defined]
        log.append(event.stream, event.revision - 1, [content_event(event.stream, event.type, event.data)])
    for family in TOLD.replicas.majority._families:
        replicas.write([(family, key, value) for key, value in TOLD.replicas.rows(family).items()])
    return log, replicas


class Copy(SharedStreams):
    """The directory of ``build`` again, with rows and a log of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.log, self.replicas = copied()
        self.ledger = TOLD.ledger


def running(replicas: Replicas) -> Front:
    streams = Copy()
    streams.replicas = replicas
    return Front(streams, store_of(replicas))


REQUESTS: list[tuple[str, str, object]] = [
    *(("POST", "/v1/lookup", {"label": ALICE, "epoch": epoch}) for epoch in range(1, NEWEST + 1)),
    ("POST", "/v1/lookup", {"label": ALICE, "since": 2}),
    ("POST", "/v1/lookup", {"label": BOB}),
    ("POST", "/v1/lookup", {"label": BOB, "epoch": 2}),
    ("POST", "/v1/lookup", {"label": "nobody@example.org"}),
    ("POST", "/v1/history", {"label": ALICE}),
    ("POST", "/v1/history", {"label": ALICE, "after": 1}),
    ("POST", "/v1/range", {"label": ALICE, "first": 1, "last": NEWEST}),
    ("GET", "/v1/directory", None),
    *(("GET", f"/v1/heads/{epoch}", None) for epoch in range(1, NEWEST + 1)),
    ("GET", f"/v1/consistency?log=heads&from=2&to={NEWEST}", None),
    ("GET", f"/v1/consistency?log=heads&from=1&to={NEWEST - 1}", None),
    ("GET", f"/v1/consistency?log=mutations&from=3&to={TOLD.ledger.committed.log.size}", None),
    ("GET", "/v1/consistency?log=mutations&from=2&to=41", None),
]


def answers(made: Front) -> Iterator[tuple[int, Any]]:
    for method, path, body in REQUESTS:
        answer = made.get(path) if method == "GET" else made.post(path, body)
        yield answer.status_code, answer.json()


def told_truly() -> list[tuple[int, Any]]:
    made = running(copied()[1])
    with front(made.streams, made=made):
        return list(answers(made))


TRUTH = told_truly()

Rows = dict[bytes, bytes]
Lie = Callable[[Replicas], list[Change]]


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


def forged_page(key: bytes, value: bytes, _rows: Rows) -> bytes:
    """Another index or hash in each slot, and a right checksum."""
    slots = decode_page(key, value)
    return encode_page(key, [slot and bytes([slot[0], slot[1] ^ 1]) + slot[2:] for slot in slots])


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


def another_head(key: PrivateKey) -> Callable[[bytes, bytes, Rows], bytes]:
    def change(_key: bytes, value: bytes, _rows: Rows) -> bytes:
        event = HeadEvent.decode(value)
        head = replace(SignedMapHead.decode(event.smh_bytes).head, map_root=b.seed("root"))
        return replace(event, smh_bytes=SignedMapHead.sign(head, key).encode()).encode()

    return change


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


OTHER_CONFIG = b.config(min_interval=9_000, previous=b.signed_config().config.hash)


def config_row(epoch: int, sequence: int, data: bytes) -> Lie:
    return lambda _: [TOLD.ledger.tables.configs.put(epoch, sequence, data)]


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
        tables = TOLD.ledger.tables
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
    "forged pages": rows("pages", forged_page),
    "forged pages below": rows("pages", lambda k, v, r: forged_page(k, v, r) if k[0] else v),
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
    "other heads that the directory signed": rows("heads", another_head(b.SIGNER)),
    "other heads by a stranger": rows("heads", another_head(b.private_key("eve"))),
    "no entries": rows("entries", gone),
    "damaged entries": rows("entries", garbage),
    "entries of others": rows("entries", next_row),
    "entries of other epochs": moved_entry,
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
    "an erasure in the place of the last record": erasure_row(TOLD.ledger.committed.log.size - 1),
    "an erasure with a node": erasure_row(3, with_node=True),
    "an erasure in the right epoch with a node": erasure_row(2, epoch=1, with_node=True),
    "an erasure that is still to come": erasure_row(TOLD.ledger.committed.log.size + 5),
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


@pytest.mark.parametrize("name", LIES)
def test_no_front_end_answers_from_a_lie_and_all_is_well_once_it_is_mended(name: str) -> None:
    _, replicas = copied()
    changes = LIES[name](replicas)
    assert changes
    mend = mend_of(replicas, changes)
    replicas.write(changes)
    made = running(replicas)
    with front(made.streams, made=made, wait=False):
        until(lambda: made.caught_up() or made.ledger.committed.epoch == 0)
        for got, true in zip(answers(made), TRUTH, strict=True):
            assert got == true or got[0] == 503, (got, true)
        replicas.write(mend)
        # Otherwise the bound is read again with the next epoch.
        made.ledger.oldest = 1
        until(lambda: made.caught_up() and are_true(made))
        opening = read_opening(made.streams.log.read(NAMES.openings(b.index("alice"))), held_by_alice(), bool)
        assert not isinstance(opening, Missing)
    assert made.errors == []


def held_by_alice() -> bytes:
    return b.next_mutation("alice", b.next_mutation("alice", b.mutation("alice"))).entry_hash


@pytest.mark.parametrize("name", LIES)
def test_a_lie_of_one_replica_costs_a_second_read(name: str) -> None:
    _, replicas = copied()
    if name == "everything is pruned":
        replicas.write([("about", b"oldest", (1).to_bytes(8))])
    for family, key, value in LIES[name](replicas):
        replicas.first[family, key] = value
    made = running(replicas)
    with front(made.streams, made=made):
        assert list(answers(made)) == TRUTH
    assert made.errors == []


@pytest.mark.parametrize("family", ["pages", "entries", "nodes", "heads", "states", "configs", "erasures"])
def test_a_replica_that_lags_costs_a_second_read(family: str) -> None:
    _, replicas = copied()
    replicas.lag(family)
    made = running(replicas)
    with front(made.streams, made=made):
        assert list(answers(made)) == TRUTH
    assert made.errors == []


def sign(log: MemoryLog, ledger: Ledger) -> None:
    """Decide what is in the queue and publish an epoch of it, as a signer does that has just started."""
    signer = new_signer(log, ledger, replace(LIMITS, watchdog=3600))
    signer.recover()
    signer._patrol.step()
    signer._last_marker_at -= 3600
    for _ in range(4):
        signer.is_behind = True
        signer.advance()


def submit_more(log: MemoryLog) -> None:
    """Something that reads and changes all parts of the map."""
    streams = SharedStreams(log)
    streams.log = log
    streams.put(*(b.next_mutation(user, b.mutation(user)) for user in USERS[1:]))
    streams.put(b.mutation("carol"))


@pytest.mark.parametrize("knows", [True, False], ids=["own state", "new"])
@pytest.mark.parametrize("name", LIES)
def test_no_signer_publishes_anything_from_a_lie(name: str, knows: bool) -> None:
    log, replicas = copied()
    local = MemoryStore(LOCAL)
    if knows:
        sign_on = ledger_of(replicas, local)
        new_signer(log, sign_on).recover()
    changes = LIES[name](replicas)
    mend = mend_of(replicas, changes)
    replicas.write(changes)
    submit_more(log)
    published = len(data_of(log, NAMES.heads))
    try:
        sign(log, ledger_of(replicas, local))
        assert len(data_of(log, NAMES.heads)) > published
    except (UnavailableError, UnverifiedRowError):
        # It begins again, until the row is mended.
        assert len(data_of(log, NAMES.heads)) == published
    check_logs(log)
    replicas.write(mend)
    if len(data_of(log, NAMES.heads)) == published:
        sign(log, ledger_of(replicas, local))
    assert len(data_of(log, NAMES.heads)) > published
    assert check_logs(log).committed.root.size == TOLD.ledger.committed.root.size + 1


@pytest.mark.parametrize("stream", [NAMES.mutations, NAMES.heads])
@pytest.mark.parametrize("revision", range(3))
@pytest.mark.parametrize("is_lost", [False, True], ids=["good store", "lost leaves"])
def test_a_patrol_tells_a_log_that_was_changed_from_a_store_that_lies(
    stream: str, revision: int, is_lost: bool
) -> None:
    log, replicas = copied()
    ledger = following(replicas)
    Patrol(log, NAMES, ledger).step()
    if is_lost:
        replicas.write(nodes_of(HEADS_LOG, 0, None)(replicas) + nodes_of(MUTATIONS_LOG, 0, None)(replicas))
        replicas.write(rows("heads", gone)(replicas))
        ledger = following(replicas)
    changed = MemoryLog()
    for event in log._all:
        data = event.data
        if (event.stream, event.revision) == (stream, revision):
            data = another_head(b.SIGNER)(b"", data, {}) if stream == NAMES.heads else other_records(data)
        changed.append(event.stream, event.revision - 1, [content_event(event.stream, event.type, data)])
    with pytest.raises((DivergenceError, EquivocationError)) as caught:
        Patrol(changed, NAMES, ledger).step()
    assert isinstance(caught.value, UnverifiedRowError) is is_lost


def other_records(data: bytes) -> bytes:
    first, records = decode_records(data)
    record = Record.decode(records[-1])
    changed = replace(record, item=replace(record.item, revision=record.item.revision + 1))
    return encode_records(first, [*records[:-1], changed.encode()])


def live_pages() -> list[bytes]:
    """Keys of pages that the newest epoch needs."""
    root = TOLD.ledger.committed.root
    return sorted(TOLD.ledger.map.pages_of(root, list(TOLD.replicas.rows("pages"))))


def test_a_list_of_replaced_pages_that_names_live_ones_deletes_nothing() -> None:
    _, replicas = copied()
    lists = replicas.rows("replaced")
    row = max(lists)
    live = live_pages()
    assert len(live) > 5
    assert not {*live} & {key for value in lists.values() for key in [value]}
    for key in (live[0], live[-1]):
        replicas.write([("replaced", row, lists[row] + key)])
        ledger = following(replicas)
        pages = replicas.rows("pages")
        with pytest.raises(UnverifiedRowError, match=r"replaced names map page .* which kept epochs need"):
            prune(ledger, 1)
        assert set(live) <= set(replicas.rows("pages"))
        assert set(pages) - set(replicas.rows("pages")) <= set(pages) - set(live)
    replicas.write([("replaced", row, lists[row])])
    ledger = following(replicas)
    prune(ledger, 1)
    assert sorted(replicas.rows("pages")) == live
    assert check_epoch(ledger, NEWEST, pytest.fail) == ledger.committed.root.size


def following(replicas: Replicas) -> Ledger:
    ledger = ledger_of(replicas)
    list(Adoption(TOLD.log, TOLD.names, ledger).jump())
    return ledger


@pytest.mark.parametrize("family", ["pages", "entries", "heads", "nodes"])
def test_a_check_of_an_epoch_believes_no_row(family: str) -> None:
    _, replicas = copied()
    for key in replicas.rows(family):
        replicas.write([(family, key, b"?")])
    problems: list[str] = []
    try:
        ledger = following(replicas)
        check_epoch(ledger, 2, problems.append)
    except UnverifiedRowError as error:
        problems.append(str(error))
    assert problems


def test_leaves_of_the_map_are_where_the_pages_say() -> None:
    """What ``later_page`` and ``moved_entry`` change: versions, which no hash covers."""
    slots = [
        slot
        for key, value in TOLD.replicas.rows("pages").items()
        for slot in decode_page(key, value)
        if slot is not None and len(slot) == LEAF_SIZE
    ]
    assert {leaf_ref(slot).version for slot in slots} == {1, 2, 3, 5}
