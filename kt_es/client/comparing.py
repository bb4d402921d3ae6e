"""Compares a checkpoint that somebody else was shown with the log that a client trusts.

The client's own front end proves that the checkpoint is an earlier state of the same log. If it is not, the
front end has to show the head of that size, which a client needs as the second statement of the evidence.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from kt_es.api.codec import decode_model
from kt_es.api.cosigned import WatchersBody
from kt_es.api.operations import WATCHERS
from kt_es.api.paths import head_path
from kt_es.client.directory import read_head
from kt_es.client.elsewhere import LogName, Place, place_at
from kt_es.client.heads import contradictions
from kt_es.client.session import DirectoryHead, Session
from kt_es.client.trusted import Trusted
from kt_es.errors import MalformedError, RefusedError, UnavailableError, VerificationError
from kt_es.evidence import contradicting_head, convicted_elsewhere
from kt_es.formats.heads import Checkpoint, mutations_origin
from kt_es.merkle.verify import log_root_from_consistency
from kt_es.process.network import is_loopback, is_safe

_PAUSE: Final = 0.3
"""Seconds between two questions to a front end that is behind."""

MOST_WATCHERS: Final = 8
"""Watchers of a directory that one client compares with."""

_MAX_WATCHERS: Final = 512 * 1024
_MAX_URL: Final = 2048

STEP: Final = "comparison"
"""The step of a ``VerificationError`` about a log that the directory signed, and that is another one."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """``where`` shows a checkpoint of ``size`` leaves of the same ``log`` that this client trusts."""

    where: str
    log: LogName
    size: int


class Comparing:
    """Compares what others were shown with the log that a client trusts. Safe for threads."""

    def __init__(self, session: Session, verify: ssl.SSLContext | bool) -> None:
        self._session = session
        self._verify = verify

    def watchers(self, *, timeout: float | None = None) -> tuple[str, ...]:
        """Ask the front end who watches the directory, and return up to 8 URLs that may be compared with.

        The directory names them, so they are for finding out, not for trust. URLs that are not HTTPS are left
        out, and those of this machine. A front end that knows no watchers names none.
        """
        deadline = self._session.transport.deadline(timeout)
        try:
            answer = self._session.transport.get(WATCHERS.path, deadline, limit=_MAX_WATCHERS)
        except RefusedError:
            return ()
        named = [watcher.url for watcher in decode_model(WatchersBody, answer.body).watchers]
        urls = dict.fromkeys(url for url in named if url is not None and self._is_askable(url))
        return tuple(urls)[:MOST_WATCHERS]

    def _is_askable(self, url: str) -> bool:
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            return False
        return is_safe(url) and len(url) <= _MAX_URL and (self._is_here or not is_loopback(host))

    @property
    def _is_here(self) -> bool:
        """Whether the front end is on this machine, as in a trial. Then its watchers may be here, too."""
        return is_loopback(urlsplit(self._session.transport.base_url).hostname or "")

    def compare_with_watcher(self, url: str, *, timeout: float | None = None) -> tuple[Comparison, ...]:
        """Do what ``compare`` does with one of ``watchers``. No address of a private network is asked."""
        return self._compare(url, timeout, public=not self._is_here)

    def compare(self, where: str, *, timeout: float | None = None) -> tuple[Comparison, ...]:
        """Compare every checkpoint that is shown at ``where`` with the log that the client trusts.

        Args:
            where: The URL of a front end, monitor or witness, or the path of a file with a checkpoint that
                somebody else saved. Nothing there is believed without the directory's signature.
            timeout: Seconds for the comparison as a whole.

        Raises:
            EquivocationError: The directory signed two logs that cannot both be true.
            VerificationError: Step "checkpoint": the directory has not signed what is shown there. Step
                "comparison": it signed another log, and its front end withholds the second statement.
            UnavailableError: Nobody answers there or at the client's front end, or one that is behind does
                not catch up in time.
        """
        return self._compare(where, timeout, public=False)

    def _compare(self, where: str, timeout: float | None, *, public: bool) -> tuple[Comparison, ...]:
        deadline = self._session.transport.deadline(timeout)
        origin = self._session.directory.trusted(deadline).origin
        with closing(place_at(where, origin, verify=self._verify, public=public)) as place:
            self._convict(place, deadline)
            return tuple(
                Comparison(place.url, log, compare_checkpoint(self._session, log, checkpoint, deadline))
                for log, checkpoint in place.checkpoints()
            )

    def _convict(self, place: Place, deadline: float) -> None:
        """Raise ``EquivocationError`` if the place has evidence against the directory."""
        directory = self._session.directory
        trusted = directory.trusted(deadline)
        keys = {signed.config.signer_key for signed in trusted.configs}
        for shown in place.evidence():
            if error := convicted_elsewhere(shown, trusted.origin, keys):
                with directory.saving():
                    raise error


def compare_checkpoint(session: Session, log: LogName, encoded: bytes, deadline: float) -> int:
    """Compare one checkpoint, and return its size. Raises as ``Comparing.compare``."""
    try:
        text = encoded.decode()
    except UnicodeDecodeError:
        raise VerificationError("checkpoint", "is not valid UTF-8") from None
    compare = _compare_heads if log == "heads" else _compare_mutations
    return session.ask(lambda trusted: compare(session, trusted, text, deadline), deadline)


def _compare_heads(session: Session, trusted: Trusted, text: str, deadline: float) -> int:
    claimed = trusted.open(text, 0)
    head = _caught_up(session, trusted, claimed, lambda head: head.proven.checkpoint.size, deadline)
    ours = head.proven.checkpoint
    if _is_earlier(session, "heads", claimed, ours, deadline):
        return claimed.size
    # Signed by the directory, and another log: its front end must still have the checkpoint of that size.
    try:
        reply = read_head(session.transport.get(head_path(claimed.size), deadline).body)
    except RefusedError:
        raise _withheld(session, claimed, "heads") from None
    for contradiction in contradictions(
        head.proven.after, reply.smh, [reply.heads_checkpoint, reply.latest_checkpoint, text]
    ):
        raise contradiction
    raise _withheld(session, claimed, "heads")


def _compare_mutations(session: Session, trusted: Trusted, text: str, deadline: float) -> int:
    origin = mutations_origin(trusted.origin)
    claimed = trusted.open(text, 0, origin)
    head = _caught_up(session, trusted, claimed, lambda head: head.head.log_size, deadline)
    ours = Checkpoint(origin, head.head.log_size, head.head.log_root)
    if _is_earlier(session, "mutations", claimed, ours, deadline):
        return claimed.size
    low, high = 1, head.head.epoch
    while low <= high:
        middle = (low + high) // 2
        try:
            shown = session.asked(head.proven.after, middle, deadline)
        except RefusedError:
            break
        if shown.head.log_size == claimed.size:
            after = shown.proven.after
            found = contradicting_head(STEP, after.origin, after.configs, shown.smh, text)
            raise found or _withheld(session, claimed, "mutations")
        low, high = (middle + 1, high) if shown.head.log_size < claimed.size else (low, middle - 1)
    raise _withheld(session, claimed, "mutations")


def _caught_up(
    session: Session,
    trusted: Trusted,
    claimed: Checkpoint,
    size_of: Callable[[DirectoryHead], int],
    deadline: float,
) -> DirectoryHead:
    """Return a verified head of the client's front end whose log is at least as long as ``claimed``."""
    while True:
        head = session.asked(trusted, None, deadline)
        trusted = head.proven.after
        if size_of(head) >= claimed.size:
            return head
        if time.monotonic() + _PAUSE >= deadline:
            raise UnavailableError(
                f"{session.transport.base_url} has {size_of(head)} of the {claimed.size} leaves of "
                f"{claimed.origin} that are shown elsewhere; it is behind, or withholds them"
            )
        time.sleep(_PAUSE)


def _is_earlier(
    session: Session, log: LogName, claimed: Checkpoint, ours: Checkpoint, deadline: float
) -> bool:
    """Return whether the front end proves that ``claimed`` is an earlier state of ``ours``."""
    if claimed.size == 0:
        return True
    if claimed.size == ours.size:
        return claimed.root == ours.root
    proof = session.directory.consistency(log, claimed.size, ours.size, deadline)
    try:
        return log_root_from_consistency(claimed.size, ours.size, claimed.root, proof) == ours.root
    except (MalformedError, VerificationError):
        return False


def _withheld(session: Session, claimed: Checkpoint, log: LogName) -> VerificationError:
    return VerificationError(
        STEP,
        f"the directory signed another log of {log} with {claimed.size} leaves than "
        f"{session.transport.base_url} shows, which does not show its own statement of that size",
    )
