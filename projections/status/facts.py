"""What the status page of a monitor says, as values: no label, and no path, stream or host of the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kt_es.merkle.log import LogState
from projections.cosigning.monitoring import CosignedLog, Handed
from projections.gossip import Neighbour
from projections.status.hours import Hour


@dataclass(frozen=True, slots=True)
class Verified:
    """The latest verified head: its epoch, its timestamp in ms, both logs, and the entries of the map."""

    epoch: int
    timestamp: int
    heads: LogState
    mutations: LogState
    entries: int


@dataclass(frozen=True, slots=True)
class Rules:
    """The config in force after the latest verified head. Intervals are in ms."""

    signer_key: str
    label_policy: str
    max_interval: int
    max_merge_delay: int
    configs: int


@dataclass(frozen=True, slots=True)
class Lag:
    """What is published and not verified. ``reachable`` is None until the source was asked."""

    heads: int = 0
    records: int = 0
    seconds: float = 0.0
    reachable: bool | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """Something that the monitor told at ``time`` (ms): an alarm, or the end of one."""

    time: int
    sentence: str
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything on the page. ``now`` and ``started`` are in ms since 1970.

    ``fault`` says what was found to be wrong; None means nothing. ``alarms`` last now, ``told`` was told
    since the start, the newest first. ``evidence`` has names of files.
    """

    origin: str
    vkey: str
    source: str
    version: str
    now: int
    started: int
    with_queue: bool
    verified: Verified | None = None
    rules: Rules | None = None
    lag: Lag = field(default_factory=Lag)
    fault: str | None = None
    alarms: Sequence[Told] = ()
    told: Sequence[Told] = ()
    evidence: Sequence[str] = ()
    hours: Sequence[Hour] = ()
    neighbours: Sequence[Neighbour] = ()
    cosigned: Sequence[CosignedLog] | None = None  # None if this monitor does not cosign
    handed: Sequence[Handed] = ()
