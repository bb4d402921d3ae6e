"""The events for the queue, all of one kind. They are made one by one, so that this process stays small."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kt_es.crypto.hashes import sha256
from kt_es.eventstore.streams import NewEvent, content_event
from kt_es.formats.entries import Entry, Mutation
from kt_es.formats.queue import MAX_EVENT, MAX_EVENT_ITEMS, MAX_ITEM, MUTATIONS, encode_mutations
from tests.builders import private_key, public

WRITER = private_key("bounds")
# The encoding of an item of this size has a head of 3 bytes. At most 3 bytes are for the head of the array.
LARGE_PER_EVENT = (MAX_EVENT - 3) // (MAX_ITEM + 3)
LARGEST_EVENT = 1000 * 1024
# Divisors for the number of large items: of a million items, about 800 MB and 1 GB of data remain.
ONE_OF = {"large": 20, "oversize": 1000}

Events = Iterator[tuple[int, NewEvent]]


def _accepted(origin: str, number: int) -> bytes:
    entry = Entry(sha256(f"{number}".encode()), 1, sha256(bytes(32)), (public(WRITER),), None)
    return Mutation.sign(entry, origin, [WRITER]).encode()


def _packed(stream: str, count: int, item: Callable[[int], bytes], per_event: int) -> Events:
    for start in range(0, count, per_event):
        numbers = range(start, min(start + per_event, count))
        data = encode_mutations([item(number) for number in numbers])
        yield len(numbers), content_event(stream, MUTATIONS, data)


def mutations(stream: str, origin: str, count: int) -> Events:
    """Make ``count`` new entries. All are accepted."""
    return _packed(stream, count, lambda number: _accepted(origin, number), MAX_EVENT_ITEMS)


def duplicates(stream: str, origin: str, count: int) -> Events:
    """Repeat one entry. The events differ, because an equal event would count as a retry."""
    same = _accepted(origin, 0)
    return _packed(
        stream, count, lambda at: same if at % MAX_EVENT_ITEMS else at.to_bytes(8), MAX_EVENT_ITEMS
    )


def garbage(stream: str, origin: str, count: int) -> Events:
    """Make items that cannot be decoded, as many in an event as it may have."""
    return _packed(stream, count, lambda at: sha256(f"{origin} {at}".encode()), MAX_EVENT_ITEMS)


def single(stream: str, origin: str, count: int) -> Events:
    """Make garbage with one item in each event."""
    return _packed(stream, count, lambda at: sha256(f"{origin} {at}".encode()), 1)


def large(stream: str, origin: str, count: int) -> Events:
    """Make items of the maximum size, which the log keeps verbatim, as many in an event as fit."""
    padding = sha256(origin.encode()) * (MAX_ITEM // 32)
    return _packed(stream, count, lambda at: at.to_bytes(8) + padding[8:], LARGE_PER_EVENT)


def oversize(stream: str, origin: str, count: int) -> Events:
    """Make events of about 1 MiB, the most that a server accepts. The log keeps a digest of each."""
    padding = sha256(origin.encode()) * (LARGEST_EVENT // 32)
    for number in range(count):
        yield 1, content_event(stream, MUTATIONS, number.to_bytes(8) + padding[8:])


KINDS: dict[str, Callable[[str, str, int], Events]] = {
    "mutations": mutations,
    "duplicates": duplicates,
    "garbage": garbage,
    "single": single,
    "large": large,
    "oversize": oversize,
}
