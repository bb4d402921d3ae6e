"""A front end in this process over a log in memory, with its threads and its ASGI application."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx

from kt_es.api.codec import encode_model
from kt_es.api.models import ErasureRequest, MutationRequest
from kt_es.api.operations import JSON_MEDIA
from kt_es.errors import KtError
from kt_es.eventstore.streams import EventLog
from kt_es.formats.entries import Mutation
from kt_es.formats.erasures import Erasure, ErasureReason
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.store import Store
from kt_es.ledger.tables import FAMILIES
from kt_es.server.asgi import ASGIApp, Receive, Scope, Send
from kt_es.server.availability import MAX_BACKLOG
from kt_es.server.cosigning import NOBODY, Cosigners
from kt_es.server.limits import DEFAULT_LIMITS, ClientLimits
from kt_es.server.registration.settings import ANYBODY, RegistrationSettings
from kt_es.server.responses import whole_body
from projections.service import FrontendService
from tests import builders as b
from tests.reference.signed_streams import SignedStreams


def _reads_whole_bodies(app: ASGIApp) -> ASGIApp:
    """``app``, which gets each body in one message, as from a connection."""

    async def read(scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        await app(scope, whole_body(body), send)

    return read


def until(true: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait for what another thread brings about."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come about"
        threading.Event().wait(0.005)


class Front:
    """``running`` and what it was made of; ``request`` asks its application."""

    def __init__(
        self,
        streams: SignedStreams,
        store: Store | None = None,
        ledger: Ledger | None = None,
        connect: Callable[[], EventLog] | None = None,
        limits: ClientLimits = DEFAULT_LIMITS,
        max_backlog: int = MAX_BACKLOG,
        registration: RegistrationSettings = ANYBODY,
        data: Path | None = None,
        *,
        exposed: bool = False,
        cosigners: Cosigners = NOBODY,
    ) -> None:
        self.streams = streams
        self.errors: list[KtError] = []
        # How much later than the latest published head it is for the front end, in ms.
        self.later = 0
        self.store = MemoryStore(FAMILIES) if store is None else store
        self.ledger = Ledger(self.store, b.ORIGIN, b.SIGNER_KEY) if ledger is None else ledger
        self.running = FrontendService(
            self.ledger,
            streams.names,
            b.VRF,
            connect or (lambda: streams.log),
            self.errors.append,
            data=data,
            max_backlog=max_backlog,
            registration=registration,
            exposed=exposed,
            cosigners=cosigners,
            limits=limits,
            keyspace="kt_people",
            now=lambda: streams.ledger.committed.standing.timestamp + self.later,
        )

    @property
    def directory(self) -> Any:
        return self.running.directory

    def caught_up(self) -> bool:
        return self.ledger.committed.epoch == self.streams.ledger.committed.epoch

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(_reads_whole_bodies(self.running.app))
            async with httpx.AsyncClient(transport=transport, base_url="http://kt.test") as client:
                return await client.request(method, path, **options)

        return anyio.run(ask)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, body: object, **options: Any) -> httpx.Response:
        headers = {"content-type": JSON_MEDIA}
        return self.request("POST", path, content=json.dumps(body).encode(), headers=headers, **options)


@contextmanager
def front(
    streams: SignedStreams, store: Store | None = None, *, wait: bool = True, made: Front | None = None
) -> Iterator[Front]:
    """A running front end that has caught up with ``streams``; ``made`` is one that was put together."""
    made = Front(streams, store) if made is None else made
    made.running.start()
    try:
        if wait:
            until(lambda: made.caught_up() and made.running.watch.problem is None)
            until(lambda: made.running.cosigning.heads.is_complete)
        yield made
    finally:
        made.running.stop()


def with_alice() -> SignedStreams:
    """The streams of ``front_with_alice``."""
    streams = SignedStreams()
    streams.put_user("alice")
    streams.epoch()
    streams.epoch()
    return streams


@contextmanager
def front_with_alice(limits: ClientLimits = DEFAULT_LIMITS, cosigners: Cosigners = NOBODY) -> Iterator[Front]:
    """A front end of a directory with two epochs, in the first of which alice has published."""
    streams = with_alice()
    with front(streams, made=Front(streams, limits=limits, cosigners=cosigners)) as made:
        yield made


def submission(user: str, made: Mutation | None = None, **changed: object) -> dict[str, Any]:
    """The body of ``POST /v1/mutations`` with ``made``, by default the first mutation of ``user``."""
    made = b.mutation(user) if made is None else made
    version = made.entry.version
    request = MutationRequest(
        b.label_of(user), made.encode(), b.opening(user, version), b.profile(user, version)
    )
    return {**encode_model(request), **changed}


def batched(user: str, made: Mutation | None = None, **changed: object) -> dict[str, Any]:
    """One submission of ``POST /v1/mutations/batch``, as ``submission`` makes it."""
    body = submission(user, made, **changed)
    return {name: value for name, value in body.items() if name != "wait"}


def erasure(user: str, signer: str | None = None) -> dict[str, Any]:
    """The body of ``POST /v1/erasures`` for the first entry of ``user``."""
    held, key = b.mutation(user), b.private_key(signer or user)
    made = Erasure.sign(held.entry.index, held.entry_hash, ErasureReason.OWNER, b.ORIGIN, key)
    return encode_model(ErasureRequest(made.encode()))
