"""Freezes the node for minutes while its connections stay open: an outage without any connection error."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx

from kt_es.client.changes import Submission
from kt_es.client.client import Client
from kt_es.errors import KtError
from kt_es.formats.entries import ProfileKey
from kt_es.formats.notes import encode_base64
from tools.torture.directory import TortureDirectory, TortureError, eventually
from tools.torture.writers import OWNER

RESIDENT = "resident@example.org"
PROFILE = (ProfileKey("laptop", "raw", b"of the resident"),)
LOOKUP_SECONDS = 5.0
FIRST_REFUSAL_SECONDS = 20.0
RESUME_SECONDS = 10.0


@dataclass(slots=True)
class NodeOutage:
    """The measurements, in seconds.

    Attributes:
        lookups: The time of each lookup.
        refusals: The time of each submission that was refused with status 503.
        woken: The monotonic time at which the node was woken.
        resumed: The time from ``woken`` until everything worked.
    """

    lookups: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    woken: float = 0.0
    resumed: float = 0.0


def post(url: str, submission: Submission) -> httpx.Response:
    """Send one submission by plain HTTP and return the answer unchecked."""
    body = {
        "label": submission.label,
        "mutation": encode_base64(submission.mutation.encode()),
        "opening": encode_base64(submission.opening),
        "profile": encode_base64(submission.profile),
    }
    return httpx.post(f"{url}/v1/mutations", json=body, timeout=60)


def freeze_node(directory: TortureDirectory, seconds: float) -> NodeOutage:
    """Freeze the node for ``seconds``, and check that reads continue and writes are refused.

    The caller measures ``resumed``, in the same way as after any other fault.
    """
    outage = NodeOutage()
    with directory.client(LOOKUP_SECONDS) as client, ThreadPoolExecutor(1) as pool:
        _settle(client)
        submission = client.prepare("late@example.org", PROFILE, [OWNER], timeout=20)
        directory.freeze("node")
        try:
            _frozen(directory, client, pool, submission, outage, seconds)
        finally:
            directory.wake("node")
            outage.woken = time.monotonic()
    # Leaving the pool waited for the submission that was under way, and this time counts.
    if not outage.refusals:
        raise TortureError("no submission was refused while the node was frozen")
    return outage


def _settle(client: Client) -> None:
    def settled() -> bool:
        try:
            return client.lookup(RESIDENT).profile == PROFILE or bool(
                client.publish(RESIDENT, PROFILE, [OWNER])
            )
        except KtError:
            return False

    eventually(settled, "a resident to look up", 60)


def _frozen(
    directory: TortureDirectory,
    client: Client,
    pool: ThreadPoolExecutor,
    submission: Submission,
    outage: NodeOutage,
    seconds: float,
) -> None:
    begun = time.monotonic()
    pause = threading.Event()
    posted: Future[httpx.Response] | None = None
    posted_at = begun
    while time.monotonic() - begun < seconds:
        directory.check_alive()
        if posted is None:
            posted, posted_at = pool.submit(post, directory.url, submission), time.monotonic()
        elif posted.done():
            _refused(posted.result())
            outage.refusals.append(time.monotonic() - posted_at)
            posted = None
        elif time.monotonic() - posted_at > FIRST_REFUSAL_SECONDS:
            raise TortureError(f"a submission was not answered within {FIRST_REFUSAL_SECONDS:.0f} s")
        outage.lookups.append(_looked_up(client))
        pause.wait(0.5)
    if directory.is_ready():
        raise TortureError("/readyz says ready while the node is frozen")


def _refused(answer: httpx.Response) -> None:
    after = answer.headers.get("retry-after", "")
    if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or not after.isdigit():
        raise TortureError(f"a submission got {answer.status_code} and Retry-After {after!r}, not 503")


def _looked_up(client: Client) -> float:
    """Look up an existing and an absent account, and return the seconds. Both lookups have to succeed."""
    begun = time.monotonic()
    try:
        if client.lookup(RESIDENT).profile != PROFILE or not client.lookup("nobody@example.org").absent:
            raise TortureError("a lookup gave something else while the node was frozen")
    except KtError as error:
        raise TortureError(f"a lookup failed while the node was frozen: {error}") from error
    return time.monotonic() - begun
