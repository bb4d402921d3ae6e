"""What the processes of a front end with workers tell each other (``workers``, ``member``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from kt_es.errors import KtError
from kt_es.process.merging import Family
from kt_es.server.clients import Uses
from projections.followed import ReplicaState
from projections.frontend import FrontendSettings


class Role(StrEnum):
    """A replica writes the data directory and serves nobody. A worker serves, and writes nothing."""

    REPLICA = "replica"
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Start:
    """The first message to a process.

    Attributes:
        name: Names the process in its log.
        prepare: Called with ``name`` first: it configures the log.
        scratch: A directory of this process alone; its data directory may be on a full disk.
        used: The connections of clients to the other workers.
        state: How the replica is; None if it does not run.
    """

    role: Role
    name: str
    settings: FrontendSettings
    prepare: Callable[[str], None]
    scratch: Path
    used: Uses = field(default_factory=dict)
    state: ReplicaState | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """The process has begun its work."""


@dataclass(frozen=True, slots=True)
class Used:
    """What clients used at one worker since its last such message, and how many connections it has now."""

    uses: Uses
    connections: int = 0


@dataclass(frozen=True, slots=True)
class Samples:
    """The metrics of a process. A number asks for the page of all processes."""

    families: list[Family]
    asks: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """The page that was asked for by ``number``."""

    number: int
    page: bytes


@dataclass(frozen=True, slots=True)
class Reread:
    """The settings were read again."""

    settings: FrontendSettings


@dataclass(frozen=True, slots=True)
class Stop:
    """End after the requests under way."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The process ends, because of ``error``."""

    error: KtError
