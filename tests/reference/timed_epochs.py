"""Published epochs without items, at chosen times."""

from __future__ import annotations

from kt_es.formats.configs import SignedConfig
from kt_es.formats.queue import CONFIG, EPOCH_MARKER
from kt_es.ledger.clock import SLACK
from signer.keys import KeyRing
from signer.work import EpochWork
from tests import builders as b
from tests.reference.signed_streams import SignedStreams

MINUTE = 60_000


# The builders' config promises a head each minute; another minute is allowed.
LIMIT = MINUTE + SLACK


def timed(*times: int, max_interval: int = MINUTE) -> SignedStreams:
    """Empty epochs with these timestamps, in ms after the start; ``max_interval`` from the third on."""
    streams = SignedStreams()
    for number, at in enumerate(times):
        if number == 1 and max_interval != MINUTE:
            config = b.config(max_interval=max_interval, previous=b.config().hash)
            streams.queue(CONFIG, SignedConfig.sign(config, [b.SIGNER]).encode())
        streams.queue(EPOCH_MARKER, b.marker(b.START + at).encode())
        work = EpochWork(streams.log, streams.names, streams.ledger, KeyRing([b.SIGNER]), 1 << 19)
        for event in streams.log.read(streams.names.queue, work.queue_next):
            work.process(event)
        work.finish()
    return streams
