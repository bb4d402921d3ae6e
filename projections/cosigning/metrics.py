"""The metrics of ``kt cosign`` for Prometheus. Witnesses have the names of the policy file."""

from __future__ import annotations

from kt_es.process.exposition import Samples


class CosignMetrics:
    """Counts what witnesses answer. The thread that asks reports, threads that answer scrapes read."""

    def __init__(self) -> None:
        samples = Samples()
        self.registry = samples.registry
        self._asked = samples.counter(
            "kt_cosign_asked", "Checkpoints that witnesses were asked to cosign", "witness", "log", "result"
        )
        self._timestamp = samples.gauge(
            "kt_cosign_timestamp_seconds", "Time of the latest cosignature", labels=("witness", "log")
        )
        self.size = samples.gauge(
            "kt_cosign_epoch", "Epoch of the latest head that witnesses were asked about"
        )
        self._outages = samples.counter("kt_cosign_outages", "Outages, by what was away", "kind")

    def cosigned(self, witness: str, log: str, timestamp: int) -> None:
        self._asked.labels(witness, log, "cosigned").inc()
        self._timestamp.labels(witness, log).set(timestamp)

    def refused(self, witness: str, log: str, result: str) -> None:
        self._asked.labels(witness, log, result).inc()

    def outage(self, kind: str) -> None:
        self._outages.labels(kind).inc()
