"""A process that verifies signatures ahead: events on its standard input, facts on its standard output.

``Verifiers`` starts it and speaks with it. It reads no file, opens no connection and keeps nothing, so it may
be killed at any time. It ends when its standard input does: when its parent has ended, however that came.

A request is a header ``>BI`` (kind of the event, size) and the data of the event. An answer is a header
``>I`` (number of facts) and the facts, 32 bytes each. Answers come in the order of the requests. A first
answer without facts, which nobody asked for, says that the process is ready.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
from collections.abc import Iterator
from typing import BinaryIO, Final

from kt_es.errors import MalformedError
from kt_es.formats.entries import MAX_MUTATION, Mutation
from kt_es.formats.facts import facts_about
from kt_es.formats.queue import ItemKind, Record, decode_mutations, decode_records

QUEUE_EVENT: Final = 1
RECORDS_EVENT: Final = 2

NICE: Final = 5
"""How much less urgent this process is than its parent."""

REQUEST: Final = struct.Struct(">BI")
ANSWER: Final = struct.Struct(">I")


def facts_in(kind: int, data: bytes, origin: str) -> list[bytes]:
    """Return the facts about all mutations of an event. What cannot be parsed has none.

    Args:
        kind: ``QUEUE_EVENT`` for a ``Mutations`` event, ``RECORDS_EVENT`` for a ``Records`` event.
        data: The data of the event, whatever they are.
        origin: The directory that the signatures are for.
    """
    facts: list[bytes] = []
    try:
        for content in _contents(kind, data):
            try:
                facts += facts_about(Mutation.decode(content), origin)
            except MalformedError:
                continue
    except MalformedError:
        pass
    return facts


def _contents(kind: int, data: bytes) -> Iterator[bytes]:
    if kind == QUEUE_EVENT:
        yield from (mutation for mutation in decode_mutations(data) if len(mutation) <= MAX_MUTATION)
        return
    for encoded in decode_records(data)[1]:
        item = Record.decode(encoded).item
        if item.kind is ItemKind.MUTATION and isinstance(item.content, bytes):
            yield item.content


def answer(requests: BinaryIO, answers: BinaryIO, origin: str) -> None:
    """Answer requests until there are no more. A request that is cut short ends the call as well."""
    answers.write(ANSWER.pack(0))
    answers.flush()
    while len(header := requests.read(REQUEST.size)) == REQUEST.size:
        kind, size = REQUEST.unpack(header)
        data = requests.read(size)
        if len(data) < size:
            return
        facts = facts_in(kind, data, origin)
        answers.write(ANSWER.pack(len(facts)) + b"".join(facts))
        answers.flush()


def main() -> None:
    # The thread that decides should not wait for a processor, or there is nothing to do ahead of it.
    os.nice(NICE)
    # The parent decides when this process ends, so an interrupt at a terminal is not for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        answer(sys.stdin.buffer, sys.stdout.buffer, sys.argv[1])
    except BrokenPipeError:
        # The parent has ended. The interpreter must not flush what nobody reads.
        sys.stdout = None


if __name__ == "__main__":
    main()
