"""Whatever a rogue writer puts into the queue gets its verdict, and the signer goes on."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

import cbor2
import pytest

from kt_es.config.settings import load_settings
from kt_es.eventstore.esdb import EsdbLog
from kt_es.eventstore.streams import ANY, NewEvent
from kt_es.formats.entries import Mutation, Signature
from kt_es.formats.queue import CONFIG, EPOCH_MARKER, MUTATIONS, Digest, Record, Verdict, encode_mutations
from kt_es.process.files import replace_file
from tests import builders as b
from tests.e2e.processes import NAMES, ORIGIN, Up, heads_of, log_at, records_of, until

pytestmark = pytest.mark.e2e

MALLORY = b.private_key("mallory")


def mutation(user: str, version: int = 1, previous: bytes | None = None, **options: object) -> Mutation:
    return b.mutation(user, version, previous, **{"origin": ORIGIN, **options})  # type: ignore[arg-type]


def with_a_wrong_signature(of: Mutation) -> bytes:
    (good,) = of.signatures
    value = good.value[:-1] + bytes([good.value[-1] ^ 1])
    return replace(of, signatures=(Signature(good.key_id, value),)).encode()


def in_more_bytes_than_needed(data: bytes) -> bytes:
    """The same array with its length in two bytes: readable CBOR, but not the one encoding."""
    assert data[0] >> 5 == 4
    longer = bytes([0x98, data[0] & 0x1F]) + data[1:]
    assert cbor2.loads(longer) == cbor2.loads(data)
    return longer


ALICE = mutation("alice")
NEXT = mutation("alice", 2, ALICE.entry_hash)

# Items of one event, which one epoch takes: what is in it and what is decided about it.
FIRST = {
    "accepted": (ALICE.encode(), Verdict.ACCEPTED),
    "duplicate": (ALICE.encode(), Verdict.DUPLICATE),
    "conflict": (mutation("alice", commits_to=bytes(32)).encode(), Verdict.CONFLICT),
    "wrong origin": (b.mutation("bob", origin=b.OTHER_ORIGIN).encode(), Verdict.UNAUTHORIZED),
    "wrong signature": (with_a_wrong_signature(mutation("bob")), Verdict.UNAUTHORIZED),
    "signed by somebody else": (mutation("bob", signed_by=[MALLORY]).encode(), Verdict.UNAUTHORIZED),
    "begins at version 2": (mutation("bob", 2, bytes(32)).encode(), Verdict.STALE),
    "no CBOR": (b"\xff\x00", Verdict.MALFORMED),
    "nothing": (b"", Verdict.MALFORMED),
    "cut off": (mutation("bob").encode()[:-1], Verdict.MALFORMED),
    "a byte too many": (mutation("bob").encode() + b"\x00", Verdict.MALFORMED),
    "not canonical": (in_more_bytes_than_needed(mutation("bob").encode()), Verdict.MALFORMED),
    "deeply nested": (b"\x81" * 16_000 + b"\x00", Verdict.MALFORMED),
    "claims 2^63 items": (b"\x9b" + (1 << 63).to_bytes(8), Verdict.MALFORMED),
    "oversize": (bytes(16 * 1024 + 1), Verdict.OVERSIZE),
    "a good one behind them": (mutation("carol").encode(), Verdict.ACCEPTED),
}

# The same in a later epoch.
SECOND = {
    "replayed": (ALICE.encode(), Verdict.REPLAY),
    "stale": (mutation("alice", commits_to=bytes(32)).encode(), Verdict.STALE),
    "another previous": (mutation("alice", 2, bytes(32)).encode(), Verdict.STALE),
    "a version left out": (mutation("alice", 3, ALICE.entry_hash).encode(), Verdict.STALE),
    "not by the current key": (
        mutation("alice", 2, ALICE.entry_hash, keys=[MALLORY]).encode(),
        Verdict.UNAUTHORIZED,
    ),
    "the successor": (NEXT.encode(), Verdict.ACCEPTED),
}


def now() -> int:
    return time.time_ns() // 1_000_000


def whole_events() -> dict[str, tuple[str, bytes, Verdict]]:
    """Events that are one item each."""
    foreign = b.config(ORIGIN, signer_keys=[MALLORY])
    return {
        "undecodable event": (MUTATIONS, b"\xff", Verdict.MALFORMED),
        "empty event": (MUTATIONS, b"", Verdict.MALFORMED),
        "no mutations": (MUTATIONS, b"\x80", Verdict.MALFORMED),
        "257 mutations": (MUTATIONS, b"\x99\x01\x01" + b"\x40" * 257, Verdict.MALFORMED),
        "event not canonical": (
            MUTATIONS,
            in_more_bytes_than_needed(encode_mutations([mutation("bob").encode()])),
            Verdict.MALFORMED,
        ),
        "undecodable large event": (MUTATIONS, bytes(200 * 1024), Verdict.MALFORMED),
        "oversize event": (MUTATIONS, bytes(256 * 1024 + 1), Verdict.OVERSIZE),
        "largest event": (MUTATIONS, bytes(1000 * 1024), Verdict.OVERSIZE),
        "unknown type": ("Strange", b"whatever", Verdict.UNKNOWN),
        "unknown large type": ("Strange", bytes(100 * 1024), Verdict.UNKNOWN),
        "a record in the queue": ("Records", b"\x80", Verdict.UNKNOWN),
        "foreign marker": (
            EPOCH_MARKER,
            b.marker(now() + 1000, key=MALLORY, origin=ORIGIN).encode(),
            Verdict.FOREIGN_MARKER,
        ),
        "malformed marker": (EPOCH_MARKER, b"\x00", Verdict.MALFORMED),
        "oversize marker": (EPOCH_MARKER, bytes(20_000), Verdict.OVERSIZE),
        "foreign config": (CONFIG, b.signed_config(foreign, [MALLORY]).encode(), Verdict.FOREIGN_CONFIG),
        "malformed config": (CONFIG, b"\x00", Verdict.MALFORMED),
    }


@dataclass(frozen=True, slots=True)
class Rogue:
    """What was decided, by the name of the case and item."""

    records: dict[str, list[Record]]
    signer: int


@pytest.fixture(scope="module")
def rogue(directory: Up) -> Rogue:
    """Everything bad is appended by a client of our own; ``records`` is what the log says of it."""
    ids: dict[str, uuid.UUID] = {}
    signer = directory.pid("signer")
    with log_at(directory.log_uri) as log:

        def append(name: str, kind: str, data: bytes) -> None:
            ids[name] = uuid.uuid4()
            log.append(NAMES.queue, ANY, [NewEvent(kind, data, ids[name])])

        append("first", MUTATIONS, encode_mutations([data for data, _ in FIRST.values()]))
        _decided(log)
        append("second", MUTATIONS, encode_mutations([data for data, _ in SECOND.values()]))
        for name, (kind, data, _) in whole_events().items():
            append(name, kind, data)
        for event in log.read(NAMES.queue):
            if event.type == EPOCH_MARKER:
                append("stale marker", EPOCH_MARKER, event.data)
                break
        config = next(iter(log.read(NAMES.queue, 0, 1)))
        append("the first config again", CONFIG, config.data)
        _decided(log)
        revisions = {event.id: event.revision for event in log.read(NAMES.queue)}
        records = records_of(log)
    decided = {
        name: [record for record in records if record.item.revision == revisions[event_id]]
        for name, event_id in ids.items()
    }
    return Rogue(decided, signer)


def _decided(log: EsdbLog) -> None:
    """Wait until a head has everything that is in the queue now."""
    last = log.last_revision(NAMES.queue)
    until(lambda: heads_of(log)[-1].queue_next > last, "everything in the queue is decided")


@pytest.mark.parametrize(("event", "cases"), [("first", FIRST), ("second", SECOND)])
def test_each_mutation_gets_its_verdict(
    rogue: Rogue, event: str, cases: dict[str, tuple[bytes, Verdict]]
) -> None:
    records = rogue.records[event]
    said = {name: record.verdict for name, record in zip(cases, records, strict=True)}
    assert said == {name: verdict for name, (_, verdict) in cases.items()}
    assert [record.item.position for record in records] == list(range(len(cases)))
    for record, (data, verdict) in zip(records, cases.values(), strict=True):
        if verdict is Verdict.OVERSIZE:
            assert isinstance(record.item.content, Digest)
        else:
            assert record.item.content == data


def test_each_event_that_is_no_mutations_gets_its_verdict(rogue: Rogue) -> None:
    expected = {name: [verdict] for name, (_, _, verdict) in whole_events().items()}
    said = {name: [record.verdict for record in rogue.records[name]] for name in expected}
    assert said == expected


def test_a_marker_and_a_config_are_not_taken_twice(rogue: Rogue) -> None:
    assert [record.verdict for record in rogue.records["stale marker"]] == [Verdict.STALE_MARKER]
    assert [record.verdict for record in rogue.records["the first config again"]] == [Verdict.FOREIGN_CONFIG]


def test_large_items_do_not_bloat_the_log(rogue: Rogue) -> None:
    for name in ("largest event", "unknown large type", "undecodable large event"):
        (record,) = rogue.records[name]
        assert len(record.encode()) < 100


def test_the_signer_goes_on_and_the_audit_is_clean(directory: Up, rogue: Rogue, tmp_path: Path) -> None:
    assert directory.pid("signer") == rogue.signer
    assert "was ended" not in directory.spoken
    document = directory.audit()
    assert document["entries"] == 2
    assert document["verdicts"]["malformed"] >= 10
    with directory.client(tmp_path / "client") as client:
        published = client.publish("dora@example.org", [], [b.private_key("dora")])
        assert published.lookup.entry is not None
        assert client.lookup("alice@example.org").absent


def test_somebody_elses_queue_is_refused(directory: Up, tmp_path: Path) -> None:
    """A queue that a rogue writer began is not this directory's: nothing is published for it."""
    settings = load_settings(directory.settings)
    base = tmp_path / "other"
    text = directory.settings.read_text().replace('directory = "people"', 'directory = "stolen"')
    (base / "keys/signer").mkdir(parents=True)
    (base / "kt.toml").write_text(text)
    pem = settings.path(settings.signer.keys) / "signer.pem"
    replace_file(base / "keys/signer/signer.pem", pem.read_bytes())
    someone = directory.stranger(tmp_path / "home")
    with log_at(directory.log_uri) as log:
        log.append("kt_queue-stolen", ANY, [NewEvent(MUTATIONS, b"\x81\x40", uuid.uuid4())])
        ran = someone.kt("-c", base / "kt.toml", "signer", "--log", directory.log_uri, code=4)
        assert f"does not begin with the config of {ORIGIN}" in ran.err.splitlines()[-1]
        assert log.last_revision("kt_mutations-stolen") == log.last_revision("kt_heads-stolen") == -1
