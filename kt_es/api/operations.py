"""The operations of the HTTP interface: path, request, answers, and the reasons of problem documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from http import HTTPStatus
from typing import Final

from kt_es.api import batches, cosigned, heads, models, registering, statuses, tiles

TEXT_MEDIA: Final = "text/plain"
JSON_MEDIA: Final = "application/json"
PROBLEM_MEDIA: Final = "application/problem+json"

MAX_REQUEST: Final = 8 * 1024
"""Bytes of a request's body, but for mutations."""
MAX_MUTATION_REQUEST: Final = 1_258_291
"""1.2 MiB: a profile of 512 KiB and a mutation of 16 KiB in base64, and room; many small ones in a batch."""
MAX_LOOKUPS_REQUEST: Final = 1024 * 1024
"""Bytes of a request about 1000 labels of 255 bytes each, whose characters may be escaped in JSON."""
MAX_ANSWER: Final = 4 * 1024 * 1024
"""Bytes of an answer's body."""


class ProblemReason(StrEnum):
    """``reason`` of a problem document, which may also be the label of a verdict on a submission."""

    MALFORMED = "malformed"
    UNAUTHORIZED = "unauthorized"
    FOREIGN_ERASURE = "foreign-erasure"
    UNKNOWN_EPOCH = "unknown-epoch"
    PRUNED_EPOCH = "pruned-epoch"
    OVERSIZE = "oversize"
    UNSUPPORTED_MEDIA = "unsupported-media"
    TOO_MANY_REQUESTS = "too-many-requests"
    INTERNAL = "internal"
    UNAVAILABLE = "unavailable"
    NOT_READY = "not-ready"
    REGISTRATION_REQUIRED = "registration-required"
    REGISTRATION_REFUSED = "registration-refused"


# Problems of every operation: what its request's bytes, its client's share or a failure of ours bring about.
_ANYWHERE = {
    400: "The request is malformed; `field` says where",
    408: "The request did not arrive in time",
    413: "The body is too large",
    429: "This client asks too often",
    431: "The head of the request is too large",
    500: "The front end failed; its log says why",
    501: "The transfer coding is not chunked",
    503: "Not now; the same request may be sent again",
}
_OF_EPOCHS = {404: "There is no such epoch here yet"}
_OF_MAPS = {**_OF_EPOCHS, 410: "The map of that epoch is no longer kept here"}
_OF_SUBMISSIONS = {
    403: "It is not signed by a key that may, or the label may not be registered",
    409: "It conflicts with what the directory holds",
}

REPEATABLE: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
"""The problems that have ``Retry-After``: whole seconds until the same request may be sent again."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    Attributes:
        name: Its name in the OpenAPI document, where ``description`` stands, too.
        answers: The models by status, or a description where the answer is of type ``media``.
        request: The model of the body; an operation without one has the method GET.
        parameters: The model of the parameters in the address; those in the path stand there in braces.
        own_problems: Describes the statuses that not every operation has.
        max_body: The most bytes of a body.
        media: The media type of an answer that is plain text.
    """

    path: str
    name: str
    description: str
    answers: Mapping[int, type] | str
    request: type | None = None
    parameters: type | None = None
    own_problems: Mapping[int, str] = field(default_factory=dict)
    max_body: int = MAX_REQUEST
    media: str = TEXT_MEDIA

    @property
    def method(self) -> str:
        return "GET" if self.request is None else "POST"

    @property
    def problems(self) -> dict[int, str]:
        """Descriptions of the problems that this operation may answer, by status."""
        media = {} if self.request is None else {415: "The body is not said to be `application/json`"}
        return dict(sorted({**_ANYWHERE, **media, **self.own_problems}.items()))


DIRECTORY = Operation(
    "/v1/directory",
    "describe",
    "Origin, name and label policy of the directory, and the chain of its signed configs.",
    {200: models.DirectoryBody},
)
LOOKUP = Operation(
    "/v1/lookup",
    "lookup",
    "What stands at a label, with every proof; absence, too, is an answer.",
    {200: models.LookupBody},
    models.LookupRequest,
    own_problems=_OF_MAPS,
)
LOOKUPS = Operation(
    "/v1/lookups",
    "lookups",
    "What stands at each of up to 1000 labels, with one head and one proof of the map for all of them.\n\n"
    "The answer is about as many of the labels as fit, from the first one on, at least one. ``count`` says\n"
    "how many; ask again for the rest.",
    {200: batches.LookupsBody},
    batches.LookupsRequest,
    own_problems=_OF_MAPS,
    max_body=MAX_LOOKUPS_REQUEST,
)
HISTORY = Operation(
    "/v1/history",
    "history",
    "The versions of a label, the oldest first, in pages.",
    {200: models.HistoryBody},
    models.HistoryRequest,
)
RANGE = Operation(
    "/v1/range",
    "epochs",
    "What stood at a label in each epoch of a range, with every proof.",
    {200: models.RangeBody},
    models.RangeRequest,
    own_problems=_OF_MAPS,
)
LATEST_HEAD = Operation(
    "/v1/heads/latest",
    "latest_head",
    "The latest signed map head with both checkpoints.",
    {200: models.HeadBody},
    parameters=models.LatestHeadParameters,
)
HEAD = Operation(
    "/v1/heads/{epoch}",
    "past_head",
    "The signed map head of one epoch with both checkpoints.",
    {200: models.HeadBody},
    parameters=models.HeadParameters,
    own_problems=_OF_EPOCHS,
)
HEAD_EVENTS = Operation(
    "/v1/heads/events",
    "head_events",
    "Each new head as a server-sent event, and those after ``since``.\n\n"
    "The data of an event are a head in JSON, with ``consistency`` from the log of the event before.\n"
    "The stream ends after ten minutes: connect again with ``Last-Event-ID``, also after any failure.",
    "Events of the type ``head``, whose id is the epoch",
    parameters=heads.HeadEventsParameters,
    media="text/event-stream",
)
CONSISTENCY = Operation(
    "/v1/consistency",
    "consistency",
    "The consistency proof between two sizes of a log (RFC 6962, 2.1.2).",
    {200: models.ConsistencyBody},
    parameters=models.ConsistencyParameters,
    own_problems=_OF_EPOCHS,
)
HEADS_CHECKPOINT = Operation(
    "/heads/checkpoint",
    "heads_checkpoint",
    "The latest checkpoint of the log of map heads.",
    "C2SP checkpoint",
)
MUTATIONS_CHECKPOINT = Operation(
    "/mutations/checkpoint",
    "mutations_checkpoint",
    "The latest checkpoint of the log of mutations.",
    "C2SP checkpoint",
)
_TILE = (
    "One file of the log as C2SP tlog-tiles has it: hashes, or entries. FORMATS, Tiles.\n\n"
    "`tile` is the rest of the path and may have slashes. A whole file never changes."
)
_OF_TILES = {404: "The log is not that large here yet"}
HEADS_TILE = Operation(
    "/heads/tile/{tile}",
    "heads_tile",
    _TILE,
    "C2SP tile or bundle of entries",
    parameters=tiles.TileParameters,
    own_problems=_OF_TILES,
    media=tiles.TILE_MEDIA,
)
MUTATIONS_TILE = replace(HEADS_TILE, path="/mutations/tile/{tile}", name="mutations_tile")
MUTATIONS = Operation(
    "/v1/mutations",
    "submit",
    "Submit a mutation: checked here, queued, and decided by the signer in the next epoch.\n\n"
    "A 503 says that the outcome is unknown; submit the same bytes again.",
    {200: models.VerdictBody, 202: models.ReceiptBody},
    models.MutationRequest,
    own_problems=_OF_SUBMISSIONS,
    max_body=MAX_MUTATION_REQUEST,
)
STATUS = Operation(
    "/v1/status",
    "status",
    "What became of a submitted mutation: unknown here, pending, or decided, with the proof of its record.",
    {200: statuses.StatusBody},
    statuses.StatusRequest,
)
MUTATIONS_BATCH = Operation(
    "/v1/mutations/batch",
    "submit_many",
    "Submit up to 256 mutations, with one outcome for each of them, in their order.\n\n"
    "Each submission is checked as if it came alone, and one that is refused does not affect the others.\n"
    "A 503, or any other failure of the whole request, says that the outcomes are unknown; submit the same\n"
    "again. A batch costs its client what its submissions cost alone.",
    {200: batches.MutationsBody},
    batches.MutationsRequest,
    max_body=MAX_MUTATION_REQUEST,
)
REGISTRATION = Operation(
    "/v1/registration",
    "registration",
    "Who may register a label here.",
    {200: registering.RegistrationBody},
)
MAIL_PROOFS = Operation(
    "/v1/registration/mail",
    "mail_proof",
    "Send a registration proof to the address that the label is.\n\n"
    "The proof is of use only with the label and the keys that ``binding`` says. A 202 says that the mail\n"
    "server has taken the mail. A 429 says that enough mails were sent within an hour.",
    {202: registering.MailProofBody},
    registering.MailProofRequest,
    own_problems={403: "No mail is sent for this label"},
)
ERASURES = Operation(
    "/v1/erasures",
    "erase",
    "Submit the signed erasure of one entry's profile: checked here, and decided in the next epoch.\n\n"
    "A lookup of the entry then has the proof that it was erased. Submitting the same again is safe.",
    {200: models.ErasureBody, 202: models.ErasureBody},
    models.ErasureRequest,
    own_problems=_OF_SUBMISSIONS,
)
COSIGNED = Operation(
    "/v1/cosigned",
    "cosigned",
    "The newest checkpoints of both logs that witnesses and monitors have cosigned.\n\n"
    "Every known cosigner has its latest one there. It vouches for all up to its size (`/v1/consistency`).",
    {200: cosigned.CosignedBody},
)
COSIGNATURES = Operation(
    "/v1/cosignatures",
    "cosign",
    "Hand in a checkpoint of this directory that a known monitor has cosigned. Sending it again is safe.",
    {200: cosigned.CosignaturesBody},
    cosigned.CosignaturesRequest,
    own_problems={403: "It is not cosigned by a known monitor, or not of the logs that were verified here"},
    max_body=cosigned.MAX_COSIGNATURES_REQUEST,
)
WATCHERS = Operation(
    "/.well-known/kt-es.json",
    "watchers",
    "The witnesses and monitors that watch this directory, as its operator names them: where to compare.",
    {200: cosigned.WatchersBody},
)
HEALTH = Operation("/healthz", "healthz", "Whether the process lives.", {200: models.HealthBody})
READY = Operation(
    "/readyz",
    "readyz",
    "Whether the front end has a head to serve that clients take, agrees with the logs and reaches them.\n\n"
    "``reasons`` names what is wrong for programs: ``rollback``, ``equivocation``, ``divergence``,\n"
    "``no-epoch``, ``log-away``, ``store-away``, ``store-rows``, ``disk-full``, ``denied``, ``silence``,\n"
    "``behind``, ``future-head`` and ``replica-away``.\n\n"
    "It stays ready while too much waits in the queue: every front end sees the same queue, and taking\n"
    "them all out of service would end lookups. ``submissions`` says then why these are refused.",
    {200: models.ReadyBody},
)
METRICS = Operation(
    "/metrics",
    "metrics",
    "Prometheus metrics; nothing in them is about a person.",
    "Prometheus text format",
)

OPERATIONS: Final = (
    DIRECTORY, LOOKUP, LOOKUPS, HISTORY, RANGE, LATEST_HEAD, HEAD_EVENTS, HEAD, CONSISTENCY, HEADS_CHECKPOINT,
    MUTATIONS_CHECKPOINT, HEADS_TILE, MUTATIONS_TILE, MUTATIONS, MUTATIONS_BATCH, STATUS, ERASURES,
    REGISTRATION, MAIL_PROOFS, COSIGNED, COSIGNATURES, WATCHERS, HEALTH, READY, METRICS,
)  # fmt: skip
