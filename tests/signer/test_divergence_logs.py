"""A head or record that was changed or lost in the logs is named, and nothing is published."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from kt_es.eventstore.streams import ANY, content_event
from kt_es.formats.heads import Checkpoint, HeadEvent, MapHead, heads_origin, sign_checkpoint
from kt_es.formats.queue import Record, Verdict, decode_records, encode_records
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.rows import StateTable
from kt_es.ledger.tables import FAMILIES, MUTATIONS_LOG, Tables
from kt_es.merkle.log import NodeId
from tests.builders import (
    ORIGIN,
    SIGNER,
    SIGNER_KEY,
    private_key,
    seed,
)
from tests.reference.forgeries import another_head
from tests.reference.memory_log import MemoryLog
from tests.reference.published_epochs import (
    committed,
    copy,
    new_signer,
    published,
    refused,
    stored,
)
from tests.reference.signing import NAMES, data_of, heads

EVE = private_key("eve")


@pytest.mark.parametrize("field", [name for name in MapHead.__slots__ if name != "origin"])
@pytest.mark.parametrize("revision", [0, 1, 2])
def test_another_head_in_the_log_is_named(field: str, revision: int) -> None:
    log = published()[0]
    value = getattr(heads(log)[revision], field)
    other = value + 1 if isinstance(value, int) else seed("another")
    changed = copy(
        log,
        lambda s, r, data: another_head(data, {field: other}) if (s, r) == (NAMES.heads, revision) else data,
    )
    if revision == 2:
        signed = "" if field == "config_hash" else "signed "
        assert f"another {signed}head of epoch 3" in refused(changed, stored())
    words = refused(changed, MemoryStore(FAMILIES))
    assert f"head of epoch {revision + 1}" in words


def test_a_head_or_checkpoint_by_another_key_is_named() -> None:
    log = published()[0]
    by_eve = copy(
        log,
        lambda s, r, data: another_head(data, {}, EVE) if s == NAMES.heads and r == 1 else data,
    )
    assert "head of epoch 2: map head: is not signed" in refused(by_eve, MemoryStore(FAMILIES))

    def other_checkpoint(stream: str, revision: int, data: bytes) -> bytes:
        if (stream, revision) != (NAMES.heads, 2):
            return data
        made = Checkpoint(heads_origin(ORIGIN), 3, seed("root"))
        return replace(
            HeadEvent.decode(data), heads_checkpoint=sign_checkpoint(made, made.origin, SIGNER)
        ).encode()

    changed = copy(log, other_checkpoint)
    assert "another signed head of epoch 3" in refused(changed, stored())
    assert "checkpoint of kt.example.org/people/heads" in refused(changed, MemoryStore(FAMILIES))


@pytest.mark.parametrize("revision", [0, 1, 2])
@pytest.mark.parametrize("position", [0, -1])
def test_a_changed_record_in_the_log_is_named(revision: int, position: int) -> None:
    log = published()[0]

    def change(stream: str, number: int, data: bytes) -> bytes:
        if (stream, number) != (NAMES.mutations, revision):
            return data
        first, records = decode_records(data)
        records[position] = records[position][:-1] + bytes([records[position][-1] ^ 1])
        return encode_records(first, records)

    first, records = decode_records(data_of(log, NAMES.mutations)[revision][1])
    number = first + (position % len(records))
    changed = copy(log, change)
    if revision == 2:
        assert f"record {number} is not the one committed here" in refused(changed, stored())
    words = refused(changed, MemoryStore(FAMILIES))
    # A config that does not verify is told by what it is.
    assert f"record {number}" in words or "the config that begins the queue" in words


def test_a_lost_hash_of_the_last_records_is_found_at_the_start() -> None:
    store, log = stored(), published()[0]
    number = decode_records(data_of(log, NAMES.mutations)[2][1])[0]
    ((family, key, _),) = Tables(store).nodes.put(MUTATIONS_LOG, [(NodeId(0, number), b"")])
    store.write([(family, key, None)])
    assert f"record {number} is not the one committed here" in refused(log, store)


@pytest.mark.parametrize("stream", [NAMES.mutations, NAMES.heads])
@pytest.mark.parametrize("last", [0, 1])
def test_a_log_that_lost_its_end_is_refused(stream: str, last: int) -> None:
    log, short = published()[0], MemoryLog()
    for name in (NAMES.queue, NAMES.mutations, NAMES.heads):
        for event in log.read(name):
            if name != stream or event.revision <= last:
                short.append(name, ANY, [content_event(name, event.type, event.data)])
    assert re.search("which was (committed|verified) here", refused(short, stored()))


def test_a_rebuild_believes_only_what_its_own_head_seals() -> None:
    log = published()[0]

    def forged(stream: str, revision: int, data: bytes) -> bytes:
        if (stream, revision) != (NAMES.mutations, 0):
            return data
        first, records = decode_records(data)
        record = Record.decode(records[1])
        records[1] = replace(record, verdict=Verdict.UNAUTHORIZED).encode()
        return encode_records(first, records)

    assert "record 1: says unauthorized, must be accepted" in refused(
        copy(log, forged), MemoryStore(FAMILIES)
    )


def test_a_rebuild_from_the_logs_comes_to_the_same_state() -> None:
    log = copy(published()[0])
    ledger = Ledger(MemoryStore(FAMILIES), ORIGIN, SIGNER_KEY)
    new_signer(log, ledger).recover()
    assert ledger.committed == committed()
    assert (
        ledger.store.get(StateTable.FAMILY, StateTable.COMMITTED)
        == published()[1][StateTable.FAMILY][StateTable.COMMITTED]
    )
