"""Logs that tell another story than before: rolled back, forked, changed under a reader. For tests."""

from __future__ import annotations

from collections.abc import Iterator

from kt_es.errors import UnavailableError
from kt_es.eventstore.streams import Event, Subscription, content_event
from kt_es.formats.configs import SignedConfig
from kt_es.formats.queue import CONFIG
from tests import builders as b
from tests.reference.memory_log import MemoryLog
from tests.reference.signed_streams import SignedStreams


def story(*users: str) -> SignedStreams:
    """A directory with one user in each epoch. Two stories that begin alike have the same first heads."""
    streams = SignedStreams()
    for user in users:
        streams.put_user(user)
        streams.epoch()
    return streams


def first_epochs(streams: SignedStreams, epochs: int) -> MemoryLog:
    """The log of ``streams`` as it was after ``epochs``: all of the queue, fewer heads and records."""
    log = MemoryLog()
    kept = {streams.names.queue: None, streams.names.mutations: epochs, streams.names.heads: epochs}
    for stream, count in kept.items():
        for event in streams.log.read(stream, 0, count):
            log.append(stream, event.revision - 1, [content_event(stream, event.type, event.data)])
    return log


def rotate(streams: SignedStreams, before: SignedConfig, old: str, new: str) -> SignedConfig:
    """Close an epoch that accepts a config by which ``new`` signs from the next epoch on."""
    keys = [b.private_key(old), b.private_key(new)]
    config = b.config(signer_keys=[keys[1]], previous=before.config.hash)
    signed = SignedConfig.sign(config, keys)
    streams.queue(CONFIG, signed.encode())
    streams.epoch()
    streams.use_key(keys[1])
    return signed


class Turning:
    """A log that can turn into another one. ``reads`` and ``subscriptions`` may come from different ones."""

    def __init__(self, log: MemoryLog) -> None:
        self.reads = self.subscriptions = log
        self.read_calls: list[tuple[str, int, int | None]] = []

    def turn(self, log: MemoryLog) -> None:
        """Everything comes from ``log`` from now on; who is connected loses the connection."""
        before = self.subscriptions
        self.reads = self.subscriptions = log
        before.away = True

    def __getattr__(self, name: str) -> object:
        return getattr(self.reads, name)

    def read(self, stream: str, start: int = 0, limit: int | None = None) -> Iterator[Event]:
        self.read_calls.append((stream, start, limit))
        if self.subscriptions.away:
            raise UnavailableError("the log is away")
        return self.reads.read(stream, start, limit)

    def subscribe(self, stream: str, after: int = -1) -> Subscription:
        return self.subscriptions.subscribe(stream, after)
