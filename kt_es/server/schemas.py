"""The JSON of the HTTP interface. Binary is standard base64 with padding, in its one form.

Answers are written as they are made, not through these models: the models are what OpenAPI shows.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from kt_es.errors import RefusedError

# A count or an epoch: what CBOR, RocksDB keys and other implementations can hold.
Uint = Annotated[int, Field(ge=0, le=2**63 - 1, strict=True)]
Epoch = Annotated[int, Field(ge=1, le=2**63 - 1)]
Base64 = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]
# Longer ones than 255 bytes of UTF-8 are refused when they are normalized.
Label = Annotated[str, StringConstraints(max_length=1024), Field(examples=["alice@example.org"])]


class Request(BaseModel):
    """A request body: unknown fields are refused, nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True)


class LookupRequest(Request):
    """``since`` is the size of the log of map heads that the client trusts."""

    label: Label
    epoch: Epoch | None = None
    since: Uint | None = None
    profile: bool = True


class MutationRequest(Request):
    """``wait``: seconds to wait for the verdict."""

    label: Label
    mutation: Base64
    opening: Base64
    profile: Base64
    wait: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = 0.0


class ErasureRequest(Request):
    """The signed erasure of one entry's profile, as FORMATS has it."""

    erasure: Base64


class HistoryRequest(Request):
    """A page of the versions above ``after``.

    ``profiles``: the newest ones of the page come along, up to 2 MiB together.
    """

    label: Label
    profiles: bool = False
    after: Uint = 0


class RangeRequest(Request):
    """The epochs ``first`` to ``last``, at most 256. ``since`` is as in a lookup."""

    label: Label
    first: Epoch
    last: Epoch
    since: Uint | None = None


class DirectoryBody(BaseModel):
    origin: str
    directory: str
    label_policy: str
    configs: Base64


class LookupBody(BaseModel):
    """``profile`` is null where the entry is absent, where it was erased, and where it was not asked for."""

    epoch: int
    answer: Base64
    profile: Base64 | None
    consistency: list[Base64]


class ReceiptBody(BaseModel):
    """In the queue, not decided yet."""

    mutation: str
    event: str


class RecordBody(BaseModel):
    sequence: int
    queue_revision: int
    position: int


class VerdictBody(BaseModel):
    """Decided and succeeded. ``record`` is null if the entry was the current one already."""

    mutation: str
    verdict: str
    epoch: int
    record: RecordBody | None


class ErasureBody(BaseModel):
    """``epoch`` is null and ``event`` is in the queue while the erasure of ``entry`` is not decided yet."""

    entry: str
    event: str | None
    epoch: int | None


class VersionBody(BaseModel):
    version: int
    epoch: int
    mutation: Base64
    opening: Base64 | None
    profile: Base64 | None


class HistoryBody(BaseModel):
    """``more``: there are later versions; ask again with ``after`` set to the last one's number."""

    versions: list[VersionBody]
    more: bool


class RangeBody(BaseModel):
    """``last`` may be below what was asked for, where the answer would be too large."""

    first: int
    last: int
    answer: Base64
    consistency: list[Base64]


class HeadBody(BaseModel):
    """A head as it was published. ``inclusion`` proves the SMH in the log of ``latest_checkpoint``."""

    epoch: int
    smh: Base64
    heads_checkpoint: str
    mutations_checkpoint: str
    inclusion: list[Base64]
    latest_checkpoint: str


class ConsistencyBody(BaseModel):
    hashes: list[Base64]


class HealthBody(BaseModel):
    status: Literal["ok"]


class ReadyBody(BaseModel):
    """``submissions`` is there only while they are refused, and says why."""

    status: Literal["ready"]
    submissions: str | None = None


class ProblemBody(BaseModel):
    """A problem document (RFC 9457).

    ``field`` names what is wrong in the request. A mutation that was decided and failed has the other members
    of a verdict, too, and ``/readyz`` has ``problems`` with their ``reasons``.
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
    problems: list[str] | None = None
    reasons: list[str] | None = None


def to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def from_base64(text: str, field: str) -> bytes:
    """The bytes of a field; RefusedError ``malformed`` unless it is their one encoding."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = None
    if data is None or to_base64(data) != text:
        raise RefusedError("malformed", "is not base64 with padding", field)
    return data
