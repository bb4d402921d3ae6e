"""Places on the network that show checkpoints, and webhooks: real HTTP on loopback, for tests."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kt_es.formats.heads import HeadEvent
from kt_es.process.exposition import answering
from kt_es.process.site import Page, site
from tests.reference.signed_streams import SignedStreams

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


def published(streams: SignedStreams, epoch: int) -> dict[str, bytes]:
    """The checkpoints of both logs that the head event of ``epoch`` has."""
    event = HeadEvent.decode(next(iter(streams.log.read(streams.names.heads, epoch - 1))).data)
    return {"heads": event.heads_checkpoint.encode(), "mutations": event.mutations_checkpoint.encode()}


class Shown:
    """What a place shows now: the answer for each path. The test replaces it at any time."""

    def __init__(self, pages: dict[str, Page] | None = None) -> None:
        self.pages = pages or {}
        self.asked: list[str] = []

    def show(self, streams: SignedStreams, epoch: int) -> None:
        self.pages = {f"/{log}/checkpoint": Page(data) for log, data in published(streams, epoch).items()}


@contextmanager
def showing(shown: Shown) -> Iterator[str]:
    """Serve ``shown`` and yield its URL."""

    def find(path: str) -> Page | None:
        shown.asked.append(path)
        return shown.pages.get(path)

    class Everything(dict[str, Any]):
        def get(self, path: str, _: Any = None) -> Any:
            return lambda _: find(path)

    with answering(site(Everything(), {}), "127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}"


class Hook:
    """A webhook: answers each request with the next of ``statuses``, the last one for good."""

    def __init__(self, *statuses: str) -> None:
        self.statuses = list(statuses) or ["204 No Content"]
        self.bodies: list[bytes] = []
        self.media: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        with self._lock:
            self.bodies.append(body)
            self.media.append(environ["CONTENT_TYPE"])
            status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        start_response(status, [("Location", "http://127.0.0.1:1/"), ("Content-Length", "0")])
        return [b""]


@contextmanager
def hooked(hook: Hook) -> Iterator[str]:
    """Serve ``hook`` and yield its URL."""
    with answering(hook, "127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}/hook/secret-of-the-path"
