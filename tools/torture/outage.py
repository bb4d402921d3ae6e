"""The node frozen for minutes while its connections stay open: the outage that looks like silence."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx

from kt_es.client.client import Client
from kt_es.client.submissions import Submission
from kt_es.errors import KtError
from kt_es.formats.notes import encode_base64
from kt_es.formats.profiles import ProfileKey
from tools.torture.directory import Directory, TortureError, eventually
from tools.torture.writers import OWNER

RESIDENT = "resident@example.org"
PROFILE = (ProfileKey("laptop", "raw", b"of the resident"),)
LOOKUP_SECONDS = 5.0
FIRST_REFUSAL_SECONDS = 20.0
RESUME_SECONDS = 10.0


@dataclass(slots=True)
class Outage:
    """What was measured. Times in seconds; ``refusals`` are those of submissions by 503.

    ``woken`` is when the node could answer again, by the monotonic clock: resuming is measured from there.
    """

    lookups: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    woken: float = 0.0
    resumed: float = 0.0


def post(url: str, submission: Submission) -> httpx.Response:
    """One submission as bare HTTP: the answer as it is."""
    body = {
        "label": submission.label,
        "mutation": encode_base64(submission.mutation.encode()),
        "opening": encode_base64(submission.opening),
        "profile": encode_base64(submission.profile),
    }
    return httpx.post(f"{url}/v1/mutations", json=body, timeout=60)


def freeze_node(directory: Directory, seconds: float) -> Outage:
    """Freeze the node for ``seconds``: reading goes on, writing is refused, and all of it by itself again.

    The last measure, how long it took to resume, is the caller's: it looks the same after any fault.
    """
    outage = Outage()
    with directory.client(LOOKUP_SECONDS) as client, ThreadPoolExecutor(1) as pool:
        _settle(client)
        submission = client.prepare("late@example.org", PROFILE, [OWNER], timeout=20)
        directory.freeze("node")
        try:
            _frozen(directory, client, pool, submission, outage, seconds)
        finally:
            directory.wake("node")
            outage.woken = time.monotonic()
    # The pool has waited for the submission that was under way: that time counts as well.
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
    directory: Directory,
    client: Client,
    pool: ThreadPoolExecutor,
    submission: Submission,
    outage: Outage,
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
    """A verified lookup of somebody and one of nobody, in seconds; it has to succeed."""
    begun = time.monotonic()
    try:
        if client.lookup(RESIDENT).profile != PROFILE or not client.lookup("nobody@example.org").absent:
            raise TortureError("a lookup gave something else while the node was frozen")
    except KtError as error:
        raise TortureError(f"a lookup failed while the node was frozen: {error}") from error
    return time.monotonic() - begun
