"""Compares a checkpoint that somebody else was shown with the log that a client trusts.

The client's own front end proves that the checkpoint is an earlier state of the same log. If it is not, the
front end has to show the head of that size, which a client needs as the second statement of the evidence.

A checkpoint of a longer log is compared at the size of the client's own log, if the other place proves how
its log continues. Otherwise it is kept in the client's state until its own front end has as many leaves.
"""

from __future__ import annotations

import ssl
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from kt_es.api.codec import decode_model
from kt_es.api.cosigned import WatchersBody
from kt_es.api.operations import WATCHERS
from kt_es.client.ahead import Ahead, forget_ahead, keep_ahead, kept_ahead
from kt_es.client.checkpoints import STEP, AheadError, compare_checkpoint, named
from kt_es.client.elsewhere import Place, SavedCheckpoint, place_at
from kt_es.client.heads import contradictions
from kt_es.client.session import Session
from kt_es.errors import (
    CannotTellError,
    ConfigError,
    MalformedError,
    RefusedError,
    UnavailableError,
    VerificationError,
)
from kt_es.evidence import convicted_elsewhere, shown_by
from kt_es.formats.heads import LogName
from kt_es.merkle.verify import log_root_from_consistency
from kt_es.process.network import is_loopback, is_safe

_SLACK: Final = 60_000
"""Milliseconds that a front end may be behind others, beside an interval of the directory."""

MOST_WATCHERS: Final = 8
"""Watchers of a directory that one client compares with."""

_MAX_WATCHERS: Final = 512 * 1024
_MAX_URL: Final = 2048


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
            ConfigError: The address or the file cannot be used.
            EquivocationError: The directory signed two logs that cannot both be true.
            VerificationError: Step "checkpoint": the directory has not signed what is shown there. Step
                "comparison": it signed another log, and its front end withholds the second statement.
            UnavailableError: Nobody answers there or at the client's front end, or one that is behind does
                not catch up in time. Then the checkpoint is kept and compared later.
            CannotTellError: Step "comparison"; an earlier checkpoint from there could not be compared within
                max_interval and a minute.
        """
        return self._compare(where, timeout, public=False)

    def settle(self, *, timeout: float | None = None) -> tuple[Comparison, ...]:
        """Compare the checkpoints that were ahead before, as far as the client's front end has their leaves.

        Raises:
            EquivocationError, VerificationError, UnavailableError: As ``compare``.
            CannotTellError: A checkpoint could not be compared within max_interval and a minute.
        """
        found, late = self._settle(self._session.transport.deadline(timeout))
        for error in late.values():
            raise error
        return found

    def _settle(self, deadline: float) -> tuple[tuple[Comparison, ...], dict[str, CannotTellError]]:
        """Return what was compared now, and an error for each place whose checkpoint waits for too long."""
        store, found = self._session.directory.store, []
        late: dict[str, CannotTellError] = {}
        for one in kept_ahead(store):
            data = one.checkpoint.encode()
            try:
                size = compare_checkpoint(
                    self._session, one.log, data, deadline, where=one.where, waits=False
                )
            except AheadError as error:
                waited = self._session.now() - one.since
                if waited > error.max_interval + _SLACK:
                    late[one.where] = CannotTellError(
                        STEP,
                        f"{one.where} showed a signed log of {error.claimed.size} leaves "
                        f"{waited // 1000} s ago, and {self._session.transport.base_url} still has only "
                        f"{error.size} of them: it is behind, or withholds them; ask another front end",
                    )
                continue
            forget_ahead(store, one)
            found.append(Comparison(one.where, one.log, size))
        return tuple(found), late

    def _compare(self, where: str, timeout: float | None, *, public: bool) -> tuple[Comparison, ...]:
        deadline = self._session.transport.deadline(timeout)
        origin = self._session.directory.trusted(deadline).origin
        with closing(place_at(where, origin, verify=self._verify, public=public)) as place:
            late = self._settle(deadline)[1].get(_name(place))
            self._convict(place, deadline)
            try:
                found = tuple(
                    Comparison(place.url, log, self._compared(place, log, checkpoint, deadline))
                    for log, checkpoint in place.checkpoints()
                )
            except AheadError as error:
                raise late or error from None
            except VerificationError as error:
                if error.step != "checkpoint" or not isinstance(place, SavedCheckpoint):
                    raise
                raise ConfigError(
                    f"{place.url} has no checkpoint that the directory has signed ({error.problem}): name "
                    "another file"
                ) from None
            if late is not None:
                raise late
            return found

    def _compared(self, place: Place, log: LogName, checkpoint: bytes, deadline: float) -> int:
        """Compare one checkpoint of ``place``; keep it if that is not possible yet. Return its size."""
        try:
            return compare_checkpoint(self._session, log, checkpoint, deadline, where=place.url, waits=False)
        except AheadError as error:
            ahead = error
        if self._continues(place, log, ahead):
            return ahead.claimed.size
        where = _name(place)
        one = Ahead(where, log, self._session.now(), checkpoint.decode())
        store = self._session.directory.store
        if any((each.where, each.log) == (where, log) for each in kept_ahead(store)):
            raise ahead
        is_kept = keep_ahead(store, one)
        try:
            size = compare_checkpoint(self._session, log, checkpoint, deadline, where=place.url)
        except AheadError as error:
            raise error if is_kept else error.forgotten() from None
        forget_ahead(store, one)
        return size

    def _continues(self, place: Place, log: LogName, ahead: AheadError) -> bool:
        """Return whether ``place`` proves that its log continues the one of this client.

        Raises ``EquivocationError`` if it shows instead that the directory signed another log.
        """
        head, claimed, ours = ahead.head, ahead.claimed, ahead.size
        root = head.proven.checkpoint.root if log == "heads" else head.head.log_root
        try:
            proof = place.consistency(log, ours, claimed.size)
            if proof is None:
                return False
            if log_root_from_consistency(ours, claimed.size, root, proof) == claimed.root:
                return True
        except (MalformedError, VerificationError):
            pass  # No proof convicts; what the place has signed does.
        except UnavailableError:
            return False
        try:
            reply = place.head(head.head.epoch)
        except (MalformedError, UnavailableError):
            return False
        if reply is not None:
            texts = [head.heads_checkpoint, reply.heads_checkpoint, reply.latest_checkpoint]
            after = replace(head.proven.after, smh=head.smh)
            with self._session.directory.saving():
                for contradiction in contradictions(after, reply.smh, texts):
                    raise named(contradiction, self._session, place.url)
        return False

    def _convict(self, place: Place, deadline: float) -> None:
        """Raise ``EquivocationError`` if the place has evidence against the directory."""
        directory = self._session.directory
        trusted = directory.trusted(deadline)
        keys = {signed.config.signer_key for signed in trusted.configs}
        for shown in place.evidence():
            if error := convicted_elsewhere(shown, trusted.origin, keys):
                with directory.saving():
                    raise shown_by(error, place.url)


def _name(place: Place) -> str:
    """The name of a place in the state. The path of a file may have bytes that are no UTF-8."""
    return place.url.encode(errors="replace").decode()
