"""The operations of a front end without their encoding, which HTTP and gRPC share.

Each operation answers with a model of ``kt_es.api``. ``encode`` makes the answer of an interface of it, in
the thread that read the data: the encoding of a large answer takes as long as reading it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Final, TypeVar

from kt_es.api.batches import LookupsBody, LookupsRequest, MutationsRequest
from kt_es.api.cosigned import CosignaturesBody, CosignaturesRequest, CosignedBody
from kt_es.api.models import (
    ConsistencyBody,
    ConsistencyParameters,
    DirectoryBody,
    ErasureBody,
    ErasureRequest,
    HeadBody,
    HeadParameters,
    HistoryBody,
    HistoryRequest,
    LatestHeadParameters,
    LookupBody,
    LookupRequest,
    MutationRequest,
    RangeBody,
    RangeRequest,
    ReceiptBody,
    VerdictBody,
)
from kt_es.api.statuses import StatusBody, StatusRequest
from kt_es.api.tiles import EntriesRequest, TileRequest
from kt_es.errors import KtError
from kt_es.merkle.tiles import Tile
from kt_es.server.answers import SlowError
from kt_es.server.batches import BatchReader
from kt_es.server.endpoints.common import Frontend, problem_for, public_error
from kt_es.server.limits import LABEL_COST, SUBMISSION_COST
from kt_es.server.responses import Problem, problem_of
from kt_es.server.submission import run_in
from kt_es.server.submission_batches import SubmissionBatches

MAX_ENTRIES: Final = 2 << 20
"""Bytes of entries in an answer over gRPC, whose clients take 4 MiB by default."""

_T = TypeVar("_T")


class Answering:
    """Answers from the committed state of the replica, and takes submissions.

    Every method raises what ``DirectoryReader`` and ``Submissions`` raise.
    """

    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend
        self._directory = frontend.directory
        self._batches = BatchReader(frontend.directory)
        self._submission_batches = SubmissionBatches(frontend.submissions)

    async def describe(self, encode: Callable[[DirectoryBody], _T]) -> _T:
        return await run_in(self._frontend.reads, lambda: encode(self._directory.describe()))

    async def lookup(self, asked: LookupRequest, encode: Callable[[LookupBody], _T]) -> _T:
        def answer(*, waits: bool = True) -> _T:
            found = self._directory.lookup(
                asked.label, asked.epoch, asked.since, profile=asked.profile, waits=waits
            )
            self._frontend.metrics.lookups.labels(found.result).inc()
            return encode(found.body)

        try:
            # A thread costs more than most lookups.
            return answer(waits=False)
        except SlowError:
            return await run_in(self._frontend.reads, answer)

    async def lookups(
        self, asked: LookupsRequest, charge: Callable[[float], None], encode: Callable[[LookupsBody], _T]
    ) -> _T:
        """Answer about many labels. ``charge`` is called with what they cost the client, in lookups."""

        def answer() -> _T:
            found = self._batches.lookups(asked.labels, asked.epoch, asked.since, profile=asked.profile)
            for result, count in found.results.items():
                self._frontend.metrics.lookups.labels(result).inc(count)
            return encode(found.body)

        charge(LABEL_COST * len(asked.labels))
        return await run_in(self._frontend.large, answer)

    async def history(self, asked: HistoryRequest, encode: Callable[[HistoryBody], _T]) -> _T:
        def answer() -> _T:
            return encode(self._directory.history(asked.label, profiles=asked.profiles, after=asked.after))

        return await run_in(self._frontend.large, answer)

    async def range(self, asked: RangeRequest, encode: Callable[[RangeBody], _T]) -> _T:
        def answer() -> _T:
            return encode(self._directory.range(asked.label, asked.first, asked.last, asked.since))

        return await run_in(self._frontend.large, answer)

    async def head(
        self, asked: LatestHeadParameters | HeadParameters, encode: Callable[[HeadBody], _T]
    ) -> _T:
        epoch = asked.epoch if isinstance(asked, HeadParameters) else None
        return await run_in(
            self._frontend.reads, lambda: encode(self._directory.head(epoch, since=asked.since))
        )

    async def cosigned(self, encode: Callable[[CosignedBody], _T]) -> _T:
        # It is in memory.
        return encode(self._frontend.cosigning.heads.answer())

    async def cosign(self, asked: CosignaturesRequest, encode: Callable[[CosignaturesBody], _T]) -> _T:
        publish = self._frontend.cosigning.publish
        new = await run_in(self._frontend.writes, lambda: publish(asked.note))
        return encode(CosignaturesBody(new))

    async def consistency(self, asked: ConsistencyParameters, encode: Callable[[ConsistencyBody], _T]) -> _T:
        def answer() -> _T:
            return encode(ConsistencyBody(self._directory.consistency(asked.log, asked.size1, asked.size2)))

        return await run_in(self._frontend.reads, answer)

    async def tile(self, asked: TileRequest, encode: Callable[[Sequence[bytes]], _T]) -> _T:
        tile, tiles = Tile(asked.level, asked.index, asked.width), self._frontend.tiles
        return await run_in(self._frontend.reads, lambda: encode(tiles.hashes(asked.log, tile, "index")))

    async def entries(self, asked: EntriesRequest, encode: Callable[[Sequence[bytes]], _T]) -> _T:
        """Answer with the entries of a tile, as many as the answer has room for."""

        def answer() -> _T:
            found = self._frontend.tiles.entries(asked.log, Tile(0, asked.index, asked.width), "index")
            rest = found[asked.skip :]
            sizes = accumulate(map(len, rest))
            return encode(rest[: sum(size <= MAX_ENTRIES for size in sizes)])

        return await run_in(self._frontend.large, answer)

    async def submit(
        self, asked: MutationRequest, waiting: Callable[[], None]
    ) -> ReceiptBody | VerdictBody | Problem:
        """Submit, and count what became of it. ``waiting`` is called before a wait for the verdict."""
        frontend = self._frontend
        try:
            taken = await frontend.submissions.take(asked, frontend.writes, waiting)
        except KtError as error:
            self._count(problem_of(public_error(frontend, error)))
            raise
        self._count(taken)
        return taken

    async def submit_many(
        self, asked: MutationsRequest, charge: Callable[[float], None], waiting: Callable[[], None]
    ) -> list[ReceiptBody | VerdictBody | Problem]:
        """Submit a batch, and count what became of each submission.

        ``charge`` is called with what they cost the client beyond the first one, in lookups.
        """
        frontend, count = self._frontend, len(asked.submissions)
        charge(SUBMISSION_COST * (count - 1))
        try:
            taken = await self._submission_batches.take(
                asked.submissions, asked.wait, frontend.writes, waiting
            )
        except KtError as error:
            self._count(problem_of(public_error(frontend, error)), count)
            raise
        outcomes = [problem_for(frontend, one) if isinstance(one, KtError) else one for one in taken]
        for outcome in outcomes:
            self._count(outcome)
        return outcomes

    def _count(self, taken: ReceiptBody | VerdictBody | Problem, times: int = 1) -> None:
        match taken:
            case Problem():
                what = taken.reason
            case ReceiptBody():
                what = "queued"
            case VerdictBody():
                what = taken.verdict
        self._frontend.metrics.submissions.labels(what).inc(times)

    async def status(self, asked: StatusRequest, encode: Callable[[StatusBody], _T]) -> _T:
        statuses = self._frontend.statuses
        return await run_in(self._frontend.large, lambda: encode(statuses.status(asked)))

    async def erase(self, asked: ErasureRequest) -> ErasureBody:
        frontend = self._frontend
        return await run_in(frontend.writes, lambda: frontend.submissions.submit_erasure(asked.erasure))
