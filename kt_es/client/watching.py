"""Watches accounts for their owners: every epoch since the last check, and who made each change.

The first watch of an account judges its complete history, and then checks every epoch from the first version
on. With ``from_now`` it begins with the present version. Progress is stored after a change was reported, so a
crash in between reports the change again and never loses it. A new watcher reports a foreign version that
the map still holds once more, although it was reported before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kt_es.client.changes import Mine
from kt_es.client.client import Client
from kt_es.client.history import signers_of
from kt_es.client.ranges import EpochEntry, VerifiedRange
from kt_es.client.state import decoded
from kt_es.errors import EquivocationError, MalformedError, VerificationError
from kt_es.formats.codec import decode, encode, take_array, take_bytes, take_uint
from kt_es.formats.entries import HASH_LENGTH, MAX_VERSION, Entry, Mutation, PublicKey
from kt_es.formats.heads import MapHead
from kt_es.formats.labels import normalize_label
from kt_es.formats.ranges import MAX_RANGE

KIND = "watch"
"""Kind of the values under which a client's store keeps the progress, by label."""

_MARK = "kt-es watch v1"

# Ranges that one turn of a label checks. The other labels have their turns before the next one.
_RANGES_A_TURN = 16


@dataclass(frozen=True, slots=True)
class Change:
    """A version of a watched account.

    Attributes:
        epoch: The epoch in which the version was found.
        timestamp: When the head of that epoch was made, in milliseconds since 1970.
        signers: The keys that signed the version.
        authorized: The keys of the version before signed it.
        mine: The version is the owner's.
        again: Another watcher has already reported the version, and ``epoch`` still holds it.
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
class WatchProgress:
    """The last epoch that was checked, and its entry. Versions up to ``judged`` were reported already."""

    epoch: int
    entry_hash: bytes | None
    judged: int = 0

    def encode(self) -> bytes:
        return encode([_MARK, self.epoch, self.entry_hash, self.judged])

    @classmethod
    def decode(cls, data: bytes) -> WatchProgress:
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
    """The result of ``Watcher.look``: checked up to ``epoch``. If ``behind``, later epochs wait."""

    epoch: int
    behind: bool


class Watcher:
    """Checks labels for changes that their owner did not make.

    The state of ``client`` keeps the progress.

    Args:
        mine: The keys of the owner.
        tell: Called with each change before the change is stored as reported. If it raises, ``look`` ends,
            and the next ``look`` reports the change again.
        from_now: Begin with the present version of a label, not with its history.
    """

    def __init__(
        self, client: Client, mine: Mine, tell: Callable[[Change], None], *, from_now: bool = False
    ) -> None:
        self._client = client
        self._mine = mine
        self._tell = tell
        self._from_now = from_now
        # Label -> the latest head when its turn began. The turn ends there, however fast the log grows.
        self._latest: dict[str, MapHead] = {}
        # The labels whose present version this watcher has judged.
        self._resumed: set[str] = set()

    def look(self, label: str) -> Turn:
        """Check the epochs of ``label`` that were not checked yet, at most 4,096 of them.

        No lookup is made, because a server could make it fail by withholding the profile of a foreign
        version. After an error the epochs that were checked until then stay checked. Raises what
        ``Client.head``, ``Client.range`` and ``Client.history`` raise.
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
            if standing is None:
                standing = self._client.range(label, progress.epoch, progress.epoch).epochs[0]
                _compare(standing, progress)
            if standing.mutation is not None:
                self._judge(label, standing, standing.mutation, (), latest.origin, again=True)
            self._resumed.add(label)
        return Turn(progress.epoch, behind)

    def _progress(self, label: str) -> WatchProgress | None:
        data = self._client.recall(KIND, label.encode())
        return decoded(data, WatchProgress.decode, f"the progress of the watch of {label}")

    def _store(self, label: str, progress: WatchProgress) -> WatchProgress:
        self._client.remember(KIND, label.encode(), progress.encode())
        return progress

    def _begin(self, label: str, latest: MapHead) -> WatchProgress:
        """Begin to watch an account: judge its history, or with ``from_now`` its present version."""
        self._resumed.add(label)
        if self._from_now:
            now = self._client.range(label, latest.epoch, latest.epoch).epochs[0]
            if now.mutation is not None:
                self._judge(label, now, now.mutation, (), latest.origin)
            return self._store(label, WatchProgress(latest.epoch, now.entry_hash))
        try:
            versions = self._client.history(label).versions
        except EquivocationError:
            raise
        except VerificationError as error:
            if error.step not in ("opening", "signatures"):
                raise
            # A profile is withheld, or a change was never authorized. The epochs still show who signed each
            # version, so every epoch is checked from the first one of the directory on.
            return self._store(label, WatchProgress(0, None))
        for version in versions:
            signers, mine = version.signers, self._mine.made(version.entry, version.signers)
            epoch, timestamp = version.epoch, version.timestamp
            self._tell(
                Change(label, epoch, timestamp, version.entry, version.entry_hash, signers, True, mine)
            )
        if not versions:
            return self._store(label, WatchProgress(latest.epoch, None))
        return self._store(label, WatchProgress(versions[0].epoch - 1, None, versions[-1].number))

    def _walk(self, label: str, latest: MapHead, progress: WatchProgress) -> tuple[WatchProgress, EpochEntry]:
        """Check one range of epochs after ``progress``. Returns the new progress and the last epoch."""
        seen = next_epochs(self._client, label, progress.epoch, latest.epoch)
        _compare(seen.epochs[0], progress)
        reported = self._reported(label, seen.epochs, progress)
        old: Sequence[PublicKey] = ()
        for each in seen.epochs:
            if each.changed and each.mutation is not None and each.entry_hash not in reported:
                self._judge(label, each, each.mutation, old, latest.origin)
            old = () if each.mutation is None else each.mutation.entry.authorized_keys
        last = seen.epochs[-1]
        number = 0 if last.mutation is None else last.mutation.entry.version
        judged = progress.judged if number < progress.judged else 0
        return self._store(label, WatchProgress(last.epoch, last.entry_hash, judged)), last

    def _reported(
        self, label: str, epochs: Sequence[EpochEntry], progress: WatchProgress
    ) -> frozenset[bytes]:
        """Return the entries that the first watch reported from the history, if ``epochs`` may have some."""
        if not progress.judged or not any(each.changed for each in epochs):
            return frozenset()
        return frozenset(version.entry_hash for version in self._client.kept(label)[: progress.judged])

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
        """Report a change; ``old`` are the keys before it. With ``again``, report only a foreign change."""
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


def _compare(seen: EpochEntry, progress: WatchProgress) -> None:
    """Step "history": ``seen`` holds the entry that was checked in the same epoch."""
    if seen.epoch == progress.epoch and seen.entry_hash != progress.entry_hash:
        raise VerificationError(
            "history", f"epoch {seen.epoch} holds another entry than the one that was checked there"
        )


def next_epochs(client: Client, label: str, done: int, last: int) -> VerifiedRange:
    """Fetch ``done`` and the epochs after it, up to ``last`` or an earlier one.

    ``done`` is fetched again so that one answer proves both sides of a change.
    """
    first = max(done, 1)
    seen = client.range(label, first, min(last, first + MAX_RANGE - 1))
    if seen.last <= done:
        raise VerificationError("answer", f"has no epoch after epoch {done}, though epoch {last} was proven")
    return seen


def every_epoch(client: Client, label: str, first: int, last: int) -> Iterator[EpochEntry]:
    """Yield the entry of ``label`` in each epoch from ``first`` to ``last``, without a gap."""
    done = first - 1
    while done < last:
        seen = next_epochs(client, label, done, last)
        yield from (each for each in seen.epochs if each.epoch > done)
        done = seen.last
