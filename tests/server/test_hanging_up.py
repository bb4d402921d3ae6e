"""A client that hangs up while its submission is appended: the request ends with the append."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from kt_es.api.models import MutationRequest
from kt_es.errors import KtError
from kt_es.eventstore.streams import Append
from tests import builders as b
from tests.reference.frontends import front, submission
from tests.reference.memory_log import MemoryLog
from tests.reference.signed_streams import SignedStreams


class Gated(MemoryLog):
    """Appends of a front end wait at a gate once it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.waits = threading.Event()

    def append_all(self, appends: Sequence[Append]) -> Sequence[KtError | None]:
        self.waits.set()
        self.gate.wait()
        return super().append_all(appends)


def test_a_stream_that_has_an_acl_already_does_not_hold_the_request() -> None:
    """The second submission of a first version is not its stream's first: its opening is appended anew."""
    log = Gated()
    streams = SignedStreams(log)
    streams.put_user("alice")
    streams.epoch()
    with front(streams) as made:
        assert made.post("/v1/mutations", submission("bob")).status_code == 202
        mutation = b.mutation("bob").encode()
        request = MutationRequest(
            label=b.label_of("bob"),
            mutation=mutation,
            opening=b.opening("bob"),
            profile=b.profile("bob"),
            wait=60.0,
        )
        waiting = threading.Event()

        async def hang_up() -> None:
            with ThreadPoolExecutor(2) as pool:
                taking = made.running.frontend.submissions.take(request, pool, waiting.set)
                task = asyncio.ensure_future(taking)
                while not log.waits.is_set():
                    await asyncio.sleep(0.001)
                task.cancel()
                await asyncio.sleep(0)
                log.gate.set()
                with pytest.raises(asyncio.CancelledError):
                    await task

        log.waits.clear()
        log.gate.clear()
        asyncio.run(hang_up())
        assert not waiting.is_set()
        assert made.running.replica.waiters._waiting == {}
