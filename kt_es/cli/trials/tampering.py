"""The lies of ``kt demo``: a changed answer, a changed record and a changed head. Each must be caught."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from operator import attrgetter

import httpx

from kt_es.cli.auditors.audit import ledger_of
from kt_es.client.client import Client
from kt_es.client.state import MemoryStateStore
from kt_es.client.trusted import Pinned
from kt_es.config.settings import Settings
from kt_es.errors import DivergenceError, KtError, VerificationError
from kt_es.eventstore.streams import ANY, Event, EventLog, StreamNames, content_event
from kt_es.formats.heads import HeadEvent, SignedMapHead
from kt_es.formats.queue import decode_records, encode_records
from kt_es.process.clock import wall_clock
from projections.auditor import audit


class _LyingTransport(httpx.BaseTransport):
    """Passes requests to the real server, and changes one bit of each answer to a lookup."""

    def __init__(self, choose: random.Random) -> None:
        self._real = httpx.HTTPTransport()
        self._choose = choose

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._real.handle_request(request)
        body = response.read()
        if request.url.path != "/v1/lookup":
            # The body is decoded already, so the header of its encoding would be wrong.
            headers = {"content-type": response.headers.get("content-type", "")}
            return httpx.Response(response.status_code, headers=headers, content=body)
        document = json.loads(body)
        answer = bytearray(base64.b64decode(document["answer"]))
        answer[self._choose.randrange(len(answer))] ^= 1 << self._choose.randrange(8)
        document["answer"] = base64.b64encode(answer).decode()
        return httpx.Response(response.status_code, json=document)

    def close(self) -> None:
        self._real.close()


def tamper_with_an_answer(url: str, settings: Settings, label: str, choose: random.Random) -> str:
    """Look up ``label`` through a transport that changes one bit of the answer."""
    pinned = Pinned(settings.origin, settings.pinned)
    with Client(url, MemoryStateStore(), pinned=pinned, transport=_LyingTransport(choose)) as client:
        try:
            client.lookup(label)
        except VerificationError as error:
            return str(error)
    raise KtError(f"a changed answer for {label} was accepted: report this")


def tamper_with_a_record(settings: Settings, log: EventLog, choose: random.Random) -> str:
    """Copy both logs within the event log, one byte of one record changed, and audit the copy."""
    events = [event for event in log.read(settings.names.mutations) if event.revision > 0]
    victim = choose.choice(events)
    _, records = decode_records(victim.data)
    position = choose.randrange(len(records))

    def change(event: Event) -> bytes:
        first, encoded = decode_records(event.data)
        # The last byte of a record is the last byte of its item: of a signature, or of a config's.
        encoded[position] = encoded[position][:-1] + bytes([encoded[position][-1] ^ 1])
        return encode_records(first, encoded)

    names = StreamNames(f"{settings.directory}_changed_record")
    _copy(log, settings.names.mutations, names.mutations, victim.revision, change)
    _copy(log, settings.names.heads, names.heads)
    return _audited(settings, log, names)


def tamper_with_a_head(settings: Settings, log: EventLog, choose: random.Random) -> str:
    """Copy both logs within the event log, one bit of one map root changed, and audit the copy."""
    last = log.last_revision(settings.names.heads)

    def change(event: Event) -> bytes:
        head_event = HeadEvent.decode(event.data)
        signed = SignedMapHead.decode(head_event.smh_bytes)
        root = bytearray(signed.head.map_root)
        root[choose.randrange(len(root))] ^= 1
        head = replace(signed.head, map_root=bytes(root))
        smh = SignedMapHead(head, head.encode(), signed.signature).encode()
        return replace(head_event, smh_bytes=smh).encode()

    names = StreamNames(f"{settings.directory}_changed_head")
    _copy(log, settings.names.mutations, names.mutations)
    _copy(log, settings.names.heads, names.heads, choose.randint(0, last), change)
    return _audited(settings, log, names)


def _copy(
    log: EventLog,
    source: str,
    target: str,
    victim: int | None = None,
    change: Callable[[Event], bytes] = attrgetter("data"),
) -> None:
    for event in log.read(source):
        data = change(event) if event.revision == victim else event.data
        log.append(target, ANY, [content_event(target, event.type, data)])


def _audited(settings: Settings, log: EventLog, names: StreamNames) -> str:
    with ledger_of(settings, None) as ledger:
        try:
            audit(log, names, ledger, with_queue=False, now=wall_clock)
        except DivergenceError as error:
            return str(error)
    raise KtError(f"the changed log {names.mutations} was found correct: report this")


def tamper(
    url: str, settings: Settings, log: EventLog, label: str, choose: random.Random
) -> Iterator[tuple[str, str]]:
    """Make all three changes. Yield what was changed, and the error that caught the change."""
    yield "one bit of an answer", tamper_with_an_answer(url, settings, label, choose)
    yield "one bit of a record", tamper_with_a_record(settings, log, choose)
    yield "one bit of a head", tamper_with_a_head(settings, log, choose)
