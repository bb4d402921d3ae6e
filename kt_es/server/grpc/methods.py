"""The methods of ``kt.v1.DirectoryService``, over the operations that HTTP has as well."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kt_es._proto import kt_v1
from kt_es.api import operations
from kt_es.api.batches import LookupsRequest, MutationsRequest
from kt_es.api.cosigned import CosignaturesRequest
from kt_es.api.models import (
    MAX_WAIT,
    ConsistencyParameters,
    ErasureRequest,
    HeadParameters,
    HistoryRequest,
    LatestHeadParameters,
    LookupRequest,
    RangeRequest,
)
from kt_es.api.operations import Operation
from kt_es.api.statuses import StatusRequest
from kt_es.api.tiles import BUNDLES, EntriesRequest, TileRequest
from kt_es.server.endpoints.answering import Answering
from kt_es.server.endpoints.common import Frontend
from kt_es.server.feed import EpochFeed
from kt_es.server.grpc import messages
from kt_es.server.grpc.calls import MAX_MESSAGE, Call, Method
from kt_es.server.grpc.messages import log_request, request_of
from kt_es.server.grpc.watching import HeadWatch
from kt_es.server.limits import route_of
from kt_es.server.responses import Problem

SERVICE = kt_v1.DESCRIPTOR.services_by_name["DirectoryService"]

_MARGIN = 0.25
"""Seconds. A wait for a verdict ends this much before the deadline of the call."""


class DirectoryMethods:
    """Answers calls with encoded messages."""

    def __init__(self, frontend: Frontend, feed: EpochFeed) -> None:
        self._answering = Answering(frontend)
        self._watch = HeadWatch(frontend, feed)

    def methods(self) -> list[Method]:
        """Return the methods; each has the limits of its operation in HTTP."""
        return [
            _method("Describe", operations.DIRECTORY, self._describe),
            _method("Lookup", operations.LOOKUP, self._lookup),
            _method("LookupMany", operations.LOOKUPS, self._lookup_many, largest=MAX_MESSAGE),
            _method("History", operations.HISTORY, self._history),
            _method("Range", operations.RANGE, self._range),
            _method("LatestHead", operations.LATEST_HEAD, self._latest_head),
            _method("PastHead", operations.HEAD, self._past_head),
            _method("Consistency", operations.CONSISTENCY, self._consistency),
            _method("Tile", operations.HEADS_TILE, self._tile),
            _method("Entries", operations.HEADS_TILE, self._entries, tile=BUNDLES),
            _method("Cosigned", operations.COSIGNED, self._cosigned),
            _method(
                "Cosign", operations.COSIGNATURES, self._cosign, largest=operations.COSIGNATURES.max_body
            ),
            _method("WatchHeads", operations.LATEST_HEAD, self._watch.watch, lasts=True),
            _method("Submit", operations.MUTATIONS, self._submit, largest=MAX_MESSAGE),
            _method("SubmitAndWait", operations.MUTATIONS, self._submit_and_wait, largest=MAX_MESSAGE),
            _method("Status", operations.STATUS, self._status),
            _method("SubmitMany", operations.MUTATIONS_BATCH, self._submit_many, largest=MAX_MESSAGE),
            _method("Erase", operations.ERASURES, self._erase),
        ]

    async def _describe(self, _: Any, __: Call) -> bytes:
        return await self._answering.describe(messages.directory_answer)

    async def _lookup(self, message: Any, _: Call) -> bytes:
        return await self._answering.lookup(request_of(LookupRequest, message), messages.lookup_answer)

    async def _lookup_many(self, message: Any, call: Call) -> bytes:
        asked = request_of(LookupsRequest, message)
        return await self._answering.lookups(asked, call.charge, messages.batch_answer)

    async def _history(self, message: Any, _: Call) -> bytes:
        return await self._answering.history(request_of(HistoryRequest, message), messages.history_answer)

    async def _range(self, message: Any, _: Call) -> bytes:
        return await self._answering.range(request_of(RangeRequest, message), messages.range_answer)

    async def _latest_head(self, message: Any, _: Call) -> bytes:
        return await self._answering.head(request_of(LatestHeadParameters, message), messages.head_answer)

    async def _past_head(self, message: Any, _: Call) -> bytes:
        return await self._answering.head(request_of(HeadParameters, message), messages.head_answer)

    async def _consistency(self, message: Any, _: Call) -> bytes:
        return await self._answering.consistency(
            log_request(ConsistencyParameters, message), messages.consistency_answer
        )

    async def _cosigned(self, _: Any, __: Call) -> bytes:
        return await self._answering.cosigned(messages.cosigned_answer)

    async def _cosign(self, message: Any, _: Call) -> bytes:
        return await self._answering.cosign(request_of(CosignaturesRequest, message), messages.cosign_answer)

    async def _tile(self, message: Any, _: Call) -> bytes:
        return await self._answering.tile(log_request(TileRequest, message), messages.tile_answer)

    async def _entries(self, message: Any, _: Call) -> bytes:
        return await self._answering.entries(log_request(EntriesRequest, message), messages.entries_answer)

    async def _submit(self, message: Any, call: Call) -> bytes | Problem:
        return await self._submitted(message, 0.0, call)

    async def _submit_and_wait(self, message: Any, call: Call) -> bytes | Problem:
        with _waiting(messages.wait_of(message), call) as wait:
            return await self._submitted(message.submission, wait, call)

    async def _submit_many(self, message: Any, call: Call) -> bytes:
        wait = messages.wait_of(message) if message.HasField("wait") else 0.0
        submissions = messages.submissions(message)
        with _waiting(wait, call) as granted:
            asked = request_of(MutationsRequest, message, submissions=submissions, wait=granted)
            taken = await self._answering.submit_many(asked, call.charge, call.release)
            return messages.outcomes_answer(taken)

    async def _submitted(self, message: Any, wait: float, call: Call) -> bytes | Problem:
        asked = messages.submission(message, min(wait, MAX_WAIT))
        taken = await self._answering.submit(asked, call.release)
        return taken if isinstance(taken, Problem) else messages.submit_answer(taken)

    async def _status(self, message: Any, _: Call) -> bytes:
        return await self._answering.status(request_of(StatusRequest, message), messages.status_answer)

    async def _erase(self, message: Any, _: Call) -> bytes:
        return messages.erasure_answer(await self._answering.erase(request_of(ErasureRequest, message)))


@contextmanager
def _waiting(wait: float, call: Call) -> Iterator[float]:
    """Yield for how many seconds of ``wait`` the call may wait.

    The answer has to arrive before the deadline of the call. A wait has no slot, so it counts as a connection
    of its client, as over HTTP. If the client has too many, there is no wait.
    """
    remaining = call.remaining()
    if remaining is not None:
        wait = min(wait, max(0.0, remaining - _MARGIN))
    if not wait:
        yield wait
        return
    with call.lasting() as has_room:
        yield wait if has_room else 0.0


def _method(
    name: str,
    operation: Operation,
    answer: Any,
    *,
    largest: int | None = None,
    lasts: bool = False,
    tile: str = "{tile}",
) -> Method:
    return Method(
        f"/{SERVICE.full_name}/{name}",
        getattr(kt_v1, SERVICE.methods_by_name[name].input_type.name),
        answer,
        route_of(operation.path.replace("{tile}", tile)),
        operation.max_body if largest is None else largest,
        lasts,
    )
