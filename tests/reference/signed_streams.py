"""A directory's streams in any event log, signed by the signer's own epoch work, one step at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from kt_es.crypto.signatures import PrivateKey
from kt_es.eventstore.streams import ANY, EventLog, StreamNames, content_event
from kt_es.formats.entries import OPENING, OPENING_ERASED, Mutation, Opening, encode_erased
from kt_es.formats.erasures import Erasure, ErasureReason
from kt_es.formats.heads import MapHead
from kt_es.formats.queue import CONFIG, EPOCH_MARKER, ERASURE, MUTATIONS, encode_mutations
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.store import Store
from kt_es.ledger.tables import FAMILIES
from signer.keys import KeyRing
from signer.work import EpochWork
from tests import builders as b
from tests.reference.memory_log import MemoryLog


class SignedStreams:
    """``put`` queues mutations and their openings, ``epoch`` publishes what the queue holds."""

    def __init__(
        self, log: EventLog | None = None, directory: str = "people", store: Store | None = None
    ) -> None:
        self.log = MemoryLog() if log is None else log
        self.names = StreamNames(directory)
        self.ledger = Ledger(MemoryStore(FAMILIES) if store is None else store, b.ORIGIN, b.SIGNER_KEY)
        self._keys = KeyRing([b.SIGNER, b.private_key("successor"), b.private_key("third")])
        self._key = b.SIGNER
        self.queue(CONFIG, b.signed_config().encode())

    def queue(self, kind: str, data: bytes) -> None:
        self.log.append(self.names.queue, ANY, [content_event(self.names.queue, kind, data)])

    def put(self, *mutations: Mutation) -> None:
        self.queue(MUTATIONS, encode_mutations([mutation.encode() for mutation in mutations]))

    def opening(self, user: str, mutation: Mutation) -> None:
        """Store what opens a builders' mutation."""
        version = mutation.entry.version
        stream = self.names.openings(mutation.entry.index)
        made = Opening(mutation.entry_hash, b.opening(user, version), b.profile(user, version))
        self.log.append(stream, ANY, [content_event(stream, OPENING, made.encode())])

    def erase(self, mutation: Mutation, key: PrivateKey = b.SIGNER) -> None:
        """Queue the erasure of one entry, signed by the operator unless another ``key`` is given."""
        entry = mutation.entry
        erasure = Erasure.sign(entry.index, mutation.entry_hash, ErasureReason.OWNER, b.ORIGIN, key)
        self.queue(ERASURE, erasure.encode())

    def forget(self, mutation: Mutation) -> None:
        """Let the private stream say that the opening is gone; nothing public says so."""
        stream = self.names.openings(mutation.entry.index)
        data = encode_erased(mutation.entry_hash)
        self.log.append(stream, ANY, [content_event(stream, OPENING_ERASED, data)])

    def put_user(self, user: str, before: Mutation | None = None) -> Mutation:
        """The next version of one of the builders' users, its opening included."""
        made = b.mutation(user) if before is None else b.next_mutation(user, before)
        self.opening(user, made)
        self.put(made)
        return made

    def use_key(self, key: PrivateKey) -> None:
        """Sign markers by ``key`` from now on, which a config has to name."""
        self._key = key

    def mark(self) -> None:
        issued_at = b.START + 1_000 * (self.ledger.committed.epoch + 1)
        self.queue(EPOCH_MARKER, b.marker(issued_at, key=self._key).encode())

    def epoch(self) -> MapHead:
        """Close an epoch over everything in the queue."""
        self.mark()
        work = EpochWork(self.log, self.names, self.ledger, self._keys, 1 << 19)
        for event in self.log.read(self.names.queue, work.queue_next):
            work.process(event)
            if work.is_closed:
                break
        return work.finish()

    @contextmanager
    def signing(self) -> Iterator[None]:
        """Publish an epoch after each mutations event, in a thread, as they come."""
        subscription = self.log.subscribe(self.names.queue, self.log.last_revision(self.names.queue))

        def run() -> None:
            for event in subscription:
                if event.type == MUTATIONS:
                    self.epoch()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            subscription.stop()
            thread.join(30)
