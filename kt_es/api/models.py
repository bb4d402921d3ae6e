"""Requests and answers of the HTTP interface, member by member.

``bytes`` are standard base64 with padding in JSON, in its one form. The docstrings of requests and answers
are the descriptions in ``docs/openapi.json``; a class without one has no description there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, TypeAlias

from kt_es.formats.entries import MAX_PROFILE
from kt_es.formats.heads import MAX_SMH
from kt_es.formats.proofs import MAX_LOG_PROOF
from kt_es.formats.registration import MAX_EVIDENCE

MAX_UINT: Final = 2**63 - 1
"""The largest size or epoch in a request: what CBOR, RocksDB keys and other implementations can hold."""

MAX_LABEL: Final = 1024
"""Characters of a label in a request. Normalization refuses labels above 255 bytes of UTF-8."""

MAX_VERSIONS: Final = 10_000
"""Versions in one page of a history."""

MAX_WAIT: Final = 60
"""Seconds that a submission may wait for its verdict."""


NAME: Final = "name"
"""In the metadata of a field: the name of a parameter in the address, where it is not that of the field."""
LATER: Final = "later"
"""In the metadata of a field: older servers refuse it, so a client leaves it out where it is None."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The lowest and the highest value of a number in a request."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Text:
    """The most characters of a text in a request, and an example for the OpenAPI document."""

    max_length: int
    example: str


@dataclass(frozen=True, slots=True)
class AtMost:
    """The most bytes or items that a client takes in an answer. The OpenAPI document does not have it."""

    size: int


Uint: TypeAlias = Annotated[int, Bounds(0, MAX_UINT)]
Epoch: TypeAlias = Annotated[int, Bounds(1, MAX_UINT)]
Label: TypeAlias = Annotated[str, Text(MAX_LABEL, "alice@example.org")]
Evidence: TypeAlias = Annotated[str, Text(MAX_EVIDENCE, "kt-token-...")]
Hashes: TypeAlias = Annotated[tuple[bytes, ...], AtMost(MAX_LOG_PROOF)]
Profile: TypeAlias = Annotated[bytes, AtMost(MAX_PROFILE)]


# --- Parameters in the address of a request ---


@dataclass(frozen=True, slots=True)
class LatestHeadParameters:
    """``since`` is the size of the log of map heads that the client trusts."""

    since: Uint | None = None


@dataclass(frozen=True, slots=True)
class HeadParameters:
    """``epoch`` is a part of the path; ``since`` is as for the latest head."""

    epoch: Epoch
    since: Uint | None = None


@dataclass(frozen=True, slots=True)
class ConsistencyParameters:
    """Two sizes of a log; their names in the address are ``from`` and ``to``."""

    log: Literal["heads", "mutations"]
    size1: Uint = field(metadata={NAME: "from"})
    size2: Uint = field(metadata={NAME: "to"})


# --- Requests: unknown members are refused, nothing is converted ---


@dataclass(frozen=True, slots=True)
class LookupRequest:
    """``since`` is the size of the log of map heads that the client trusts."""

    label: Label
    epoch: Epoch | None = None
    since: Uint | None = None
    profile: bool = True


@dataclass(frozen=True, slots=True)
class MutationRequest:
    """``wait``: seconds to wait for the verdict.

    ``registration``: the token, mail proof or ID token that lets a new label be registered, where the
    directory asks for one. Later versions need none.
    """

    label: Label
    mutation: bytes
    opening: bytes
    profile: bytes
    wait: Annotated[float, Bounds(0, MAX_WAIT)] = 0.0
    registration: Evidence | None = field(default=None, repr=False, metadata={LATER: True})


@dataclass(frozen=True, slots=True)
class ErasureRequest:
    """The signed erasure of one entry's profile, as FORMATS has it."""

    erasure: bytes


@dataclass(frozen=True, slots=True)
class HistoryRequest:
    """A page of the versions above ``after``.

    ``profiles``: the newest ones of the page come along, up to 2 MiB together.
    """

    label: Label
    profiles: bool = False
    after: Uint = 0


@dataclass(frozen=True, slots=True)
class RangeRequest:
    """The epochs ``first`` to ``last``, at most 256. ``since`` is as in a lookup."""

    label: Label
    first: Epoch
    last: Epoch
    since: Uint | None = None


# --- Answers: a client ignores unknown members ---


@dataclass(frozen=True, slots=True)
class DirectoryBody:
    origin: str
    directory: str
    label_policy: str
    configs: bytes


@dataclass(frozen=True, slots=True)
class LookupBody:
    """``profile`` is null where the entry is absent, where it was erased, and where it was not asked for."""

    epoch: int
    answer: bytes
    profile: Profile | None
    consistency: Hashes


@dataclass(frozen=True, slots=True)
class ReceiptBody:
    """In the queue, not decided yet. ``registration`` is as in a verdict."""

    mutation: str
    event: str
    registration: str | None = None


@dataclass(frozen=True, slots=True)
class RecordBody:
    sequence: int
    queue_revision: int
    position: int


@dataclass(frozen=True, slots=True)
class VerdictBody:
    """Decided and succeeded. ``record`` is null if the entry was the current one already.

    ``registration`` says how it was checked that this new label may be registered: ``open``, ``tokens``,
    ``email`` or ``oidc``. It is null for later versions and where nothing was checked again.
    """

    mutation: str
    verdict: str
    epoch: int
    record: RecordBody | None
    registration: str | None = None


@dataclass(frozen=True, slots=True)
class ErasureBody:
    """``epoch`` is null and ``event`` is in the queue while the erasure of ``entry`` is not decided yet."""

    entry: str
    event: str | None
    epoch: int | None


@dataclass(frozen=True, slots=True)
class VersionBody:
    version: int
    epoch: int
    mutation: bytes
    opening: bytes | None
    profile: Profile | None


@dataclass(frozen=True, slots=True)
class HistoryBody:
    """``more``: there are later versions; ask again with ``after`` set to the last one's number."""

    versions: Annotated[tuple[VersionBody, ...], AtMost(MAX_VERSIONS)]
    more: bool


@dataclass(frozen=True, slots=True)
class RangeBody:
    """``last`` may be below what was asked for, where the answer would be too large."""

    first: int
    last: int
    answer: bytes
    consistency: Hashes


@dataclass(frozen=True, slots=True)
class HeadBody:
    """A head as it was published. ``inclusion`` proves the SMH in the log of ``latest_checkpoint``."""

    epoch: int
    smh: Annotated[bytes, AtMost(MAX_SMH)]
    heads_checkpoint: str
    mutations_checkpoint: str
    inclusion: Hashes
    latest_checkpoint: str


@dataclass(frozen=True, slots=True)
class ConsistencyBody:
    hashes: Hashes


@dataclass(frozen=True, slots=True)
class HealthBody:
    status: Literal["ok"]


@dataclass(frozen=True, slots=True)
class ReadyBody:
    """``submissions`` is there only while they are refused, and says why.

    ``registration`` is there only while anybody may register labels from other machines, and says so.
    """

    status: Literal["ready"]
    submissions: str | None = None
    registration: str | None = None


@dataclass(frozen=True, slots=True)
class ProblemBody:
    """A problem document (RFC 9457).

    ``field`` names what is wrong in the request. A mutation that was decided and failed has the other members
    of a verdict, too, and ``/readyz`` has ``problems`` with their ``reasons``. ``ways`` are those in which
    this front end lets people register labels, where it refused one.
    """

    type: str
    title: str
    status: int
    detail: str
    reason: str
    field: str | None = None
    mutation: str | None = None
    verdict: str | None = None
    epoch: int | None = None
    record: RecordBody | None = None
    problems: tuple[str, ...] | None = None
    reasons: tuple[str, ...] | None = None
    registration: str | None = None
    ways: tuple[str, ...] | None = None
