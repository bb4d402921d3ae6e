"""Watches accounts for their owner: every epoch since the last check, and who made each change.

The first watch of an account judges its complete history, and then walks through every epoch from its first
version on. ``from_now`` begins with what stands now. Progress is stored after a change has been told, so a
crash in between tells it again and never loses it. A new watcher tells a foreign version that still stands
once more: that is no news, but nothing is in order either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kt_es.client.client import Client
from kt_es.client.history import Version, signers_of
from kt_es.client.ranges import EpochEntry
from kt_es.client.vouching import Mine
from kt_es.client.walking import next_epochs
from kt_es.errors import ConfigError, EquivocationError, MalformedError, VerificationError
from kt_es.formats.codec import decode, encode, take_array, take_bytes, take_uint
from kt_es.formats.entries import HASH_LENGTH, MAX_VERSION, Entry, Mutation
from kt_es.formats.heads import MapHead
from kt_es.formats.keys import PublicKey
from kt_es.formats.labels import normalize_label

KIND = "watch"
"""The kind under which a client's store keeps the progress, by label."""

_MARK = "kt-es watch v1"

# One turn of a label; the others have theirs before it goes on.
_RANGES_A_TURN = 16


@dataclass(frozen=True, slots=True)
class Change:
    """A version of a watched account. ``mine`` says whether it is the owner's.

    ``authorized`` is False where the keys of the version before did not sign it. ``again`` is True where
    another watcher told it before, and it still stands in ``epoch``.
    """

    label: str
    epoch: int
    timestamp: int
    entry: Entry
    entry_hash: bytes
    signers: tuple[PublicKey, ...]
    authorized: bool
    mine: bool
    again: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """The last epoch that was checked, and the entry that stood there; None if there was none.

    Versions up to ``judged`` have been told already, from the history.
    """

    epoch: int
    entry_hash: bytes | None
    judged: int = 0

    def encode(self) -> bytes:
        return encode([_MARK, self.epoch, self.entry_hash, self.judged])

    @classmethod
    def decode(cls, data: bytes) -> Progress:
        what = "progress of a watch"
        mark, epoch, entry_hash, judged = take_array(decode(data, what), what, 4)
        if mark != _MARK:
            raise MalformedError(what, f"must begin with {_MARK!r}")
        return cls(
            take_uint(epoch, f"{what} epoch"),
            None if entry_hash is None else take_bytes(entry_hash, f"{what} entry", HASH_LENGTH),
            take_uint(judged, f"{what} judged", 0, MAX_VERSION),
        )


@dataclass(frozen=True, slots=True)
class Turn:
    """What one look came to: checked up to ``epoch``; ``behind`` if later epochs wait for the next turn."""

    epoch: int
    behind: bool


class Watcher:
    """Looks at one label after the other. ``tell`` is called with each change before it is stored as seen.

    What ``tell`` raises ends the look, and the change is told again by the next one.
    """

    def __init__(
        self, client: Client, mine: Mine, tell: Callable[[Change], None], *, from_now: bool = False
    ) -> None:
        self._client = client
        self._mine = mine
        self._tell = tell
        self._from_now = from_now
        # Label -> the latest head when its turn began: the walk ends there, however fast the log grows.
        self._latest: dict[str, MapHead] = {}
        # The labels of which this watcher has judged what stands.
        self._resumed: set[str] = set()

    def look(self, label: str) -> Turn:
        """Check the epochs of ``label`` that were not checked yet, at most a turn's worth of them.

        The latest head has to be fresh. No lookup is needed for it, which a server could fail by holding back
        the profile of a foreign version. Raises what a head, a history or a range raises. What was checked
        until then stays checked.
        """
        latest = self._latest.pop(label, None) or self._client.head().head
        label = normalize_label(label, self._client.trusted().configs[0].config.label_policy)
        progress = self._progress(label) or self._begin(label, latest)
        standing: EpochEntry | None = None
        for _ in range(_RANGES_A_TURN):
            if progress.epoch >= latest.epoch:
                break
            progress, standing = self._walk(label, latest, progress)
        if behind := progress.epoch < latest.epoch:
            self._latest[label] = latest
        elif label not in self._resumed:
            self._resume(label, standing or self._look_again(label, progress), latest.origin)
        return Turn(progress.epoch, behind)

    def _look_again(self, label: str, progress: Progress) -> EpochEntry:
        """What stands in the last epoch that was checked: the same as then."""
        now = self._client.range(label, progress.epoch, progress.epoch).epochs[0]
        _compare(now, progress)
        return now

    def _resume(self, label: str, standing: EpochEntry, origin: str) -> None:
        if standing.mutation is not None:
            self._judge(label, standing, standing.mutation, (), origin, again=True)
        self._resumed.add(label)

    def _progress(self, label: str) -> Progress | None:
        data = self._client.recall(KIND, label.encode())
        try:
            return None if data is None else Progress.decode(data)
        except MalformedError as error:
            raise ConfigError(f"the progress of the watch of {label} is damaged: {error}") from None

    def _store(self, label: str, progress: Progress) -> Progress:
        self._client.remember(KIND, label.encode(), progress.encode())
        return progress

    def _begin(self, label: str, latest: MapHead) -> Progress:
        """The first sight of an account: judge its history, or with ``from_now`` what stands now."""
        self._resumed.add(label)
        if self._from_now:
            now = self._client.range(label, latest.epoch, latest.epoch).epochs[0]
            if now.mutation is not None:
                self._judge(label, now, now.mutation, (), latest.origin)
            return self._store(label, Progress(latest.epoch, now.entry_hash))
        try:
            versions = self._client.history(label).versions
        except EquivocationError:
            raise
        except VerificationError as error:
            if error.step not in ("opening", "signatures"):
                raise
            # A profile is held back, or a change was never authorized. The epochs show whose versions stood
            # there all the same, so every epoch is walked through from the first one of the directory on.
            return self._store(label, Progress(0, None))
        for version in versions:
            self._tell(self._of_history(label, version))
        if not versions:
            return self._store(label, Progress(latest.epoch, None))
        return self._store(label, Progress(versions[0].epoch - 1, None, versions[-1].number))

    def _walk(self, label: str, latest: MapHead, progress: Progress) -> tuple[Progress, EpochEntry]:
        """Check one range of epochs after ``progress``: the progress after it, and its last epoch."""
        seen = next_epochs(self._client, label, progress.epoch, latest.epoch)
        _compare(seen.epochs[0], progress)
        told = self._told(label, seen.epochs, progress)
        before: Mutation | None = None
        for one in seen.epochs:
            if one.changed and one.mutation is not None and one.entry_hash not in told:
                old: Sequence[PublicKey] = () if before is None else before.entry.authorized_keys
                self._judge(label, one, one.mutation, old, latest.origin)
            before = one.mutation
        last = seen.epochs[-1]
        number = 0 if last.mutation is None else last.mutation.entry.version
        judged = progress.judged if number < progress.judged else 0
        return self._store(label, Progress(last.epoch, last.entry_hash, judged)), last

    def _told(self, label: str, epochs: Sequence[EpochEntry], progress: Progress) -> frozenset[bytes]:
        """The entries that the first watch told already, if ``epochs`` may have some of them."""
        if not progress.judged or not any(one.changed for one in epochs):
            return frozenset()
        versions = self._client.kept(label)[: progress.judged]
        return frozenset(version.entry_hash for version in versions)

    def _judge(
        self,
        label: str,
        seen: EpochEntry,
        mutation: Mutation,
        old: Sequence[PublicKey],
        origin: str,
        *,
        again: bool = False,
    ) -> None:
        """Tell a change; ``old`` are the authorized keys of the version before it.

        With ``again`` it is told only if it is foreign.
        """
        entry, signers = mutation.entry, signers_of(mutation, old, origin)
        mine = seen.authorized and self._mine.made(entry, signers)
        if again and mine:
            return
        self._tell(
            Change(
                label,
                seen.epoch,
                seen.timestamp,
                entry,
                mutation.entry_hash,
                signers,
                seen.authorized,
                mine,
                again,
            )
        )
        self._resumed.add(label)

    def _of_history(self, label: str, version: Version) -> Change:
        mine = self._mine.made(version.entry, version.signers)
        return Change(
            label,
            version.epoch,
            version.timestamp,
            version.entry,
            version.entry_hash,
            version.signers,
            True,
            mine,
        )


def _compare(seen: EpochEntry, progress: Progress) -> None:
    """Raises ``VerificationError`` if ``seen`` contradicts what was checked in the same epoch."""
    if seen.epoch == progress.epoch and seen.entry_hash != progress.entry_hash:
        raise VerificationError(
            "history", f"epoch {seen.epoch} holds another entry than the one that was checked there"
        )
