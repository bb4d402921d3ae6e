"""Answers to reading requests, without a framework: directory, lookups, histories, heads, consistency.

Each request takes the committed state once and answers from that one epoch. A replica that has diverged
answers nothing any more, because its data cannot be trusted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kt_es.api.models import DirectoryBody, HeadBody, HistoryBody, RangeBody, VersionBody
from kt_es.api.operations import ProblemReason
from kt_es.errors import ConfigError, DivergenceError, KtError, RefusedError
from kt_es.formats.configs import Config
from kt_es.formats.entries import Mutation, Opening
from kt_es.formats.heads import HeadEvent
from kt_es.formats.labels import normalize_label
from kt_es.formats.proofs import ErasureProof, LookupAnswer, encode_configs
from kt_es.ledger.authorized import entry_at, history
from kt_es.ledger.ledger import Ledger, config_chain
from kt_es.ledger.proofs import map_root_at, prove_consistency, prove_erasure, prove_head, prove_smh
from kt_es.ledger.rows import Committed
from kt_es.ledger.tables import HEADS_LOG, MUTATIONS_LOG
from kt_es.merkle.map import LeafRef
from kt_es.server.answers import FoundLookup, Indexer, OpeningReader, SlowError, answer_range, check_range
from kt_es.server.renewing import renewed
from kt_es.server.responses import NotNowError, stopped

LOGS = {"heads": HEADS_LOG, "mutations": MUTATIONS_LOG}

# Bytes of the profiles in one page of a history, and of everything else in it. A client takes 4 MiB of JSON.
MAX_HISTORY_PROFILES = 2 * 1024 * 1024
MAX_HISTORY_PAGE = 256 * 1024
# Bytes of JSON of a version without its entry, and of each signature.
_VERSION_SIZE = 192
_SIGNATURE_SIZE = 104


@dataclass(frozen=True, slots=True)
class PublishedHead:
    """A head, and its inclusion in the log of map heads of ``committed``."""

    committed: Committed
    event: HeadEvent
    inclusion: tuple[bytes, ...]


class DirectoryReader:
    """Reads one directory. Safe for threads.

    Every method may raise ``UnavailableError`` (no epoch yet, or this replica is behind the client),
    ``RefusedError`` of reason ``unknown-epoch`` or ``pruned-epoch``, and ``MalformedError`` for a label or
    number. Heads of pruned epochs are still answered, and so are their versions in a history.
    """

    def __init__(self, name: str, ledger: Ledger, indexer: Indexer, openings: OpeningReader) -> None:
        self.name = name
        self.ledger = ledger
        self.indexer = indexer
        self.openings = openings
        # Why there is no epoch yet, in words for clients. ``Health`` knows more.
        self.why_no_epoch: Callable[[], str] = lambda: "it has just started"
        # Makes a worker's copy as new as the replica. Returns False if this process keeps the replica itself.
        self.renew: Callable[[], bool] = lambda: False
        # Why this front end cannot learn verdicts now, besides a full disk.
        self.why_no_verdicts: Callable[[], str | None] = lambda: None
        # Once this is set, nothing is answered, because the data of this replica are in doubt.
        self.failure: KtError | None = None
        self._latest: PublishedHead | None = None

    def committed(self) -> Committed:
        """Return the state to answer from."""
        if self.failure is not None:
            raise NotNowError(stopped(self.failure), retry_after=30.0)
        committed = self.ledger.committed
        if committed.epoch == 0:
            raise NotNowError(f"this front end has no epoch yet: {self.why_no_epoch()}")
        self.check_key(committed)
        return committed

    def check_key(self, committed: Committed) -> None:
        """Raise ``ConfigError`` if the VRF key is not the one of the directory's config."""
        config = committed.standing.config
        if config is not None and config.config.vrf_key != self.indexer.public:
            raise ConfigError("the VRF key file does not belong to this directory: its config names another")

    @property
    def disk_problem(self) -> str | None:
        """The reason why this replica cannot go on; None while it can."""
        problem = "the disk of this front end is full, so its replica waits for space"
        return problem if self.ledger.store.is_full else None

    def check_submissions(self) -> None:
        """Raise ``UnavailableError`` while this front end cannot learn the verdicts on submissions."""
        if (problem := self.disk_problem or self.why_no_verdicts()) is not None:
            raise NotNowError(f"{problem}; submit again later", retry_after=10.0)

    def config(self, committed: Committed) -> Config:
        """Return the config in force for the coming epoch."""
        if (signed := committed.standing.config) is None:
            raise DivergenceError("an epoch was committed without a config")
        return signed.config

    @renewed
    def describe(self) -> DirectoryBody:
        committed = self.committed()
        config = self.config(committed)
        chain = encode_configs(config_chain(self.ledger, committed))
        return DirectoryBody(config.origin, self.name, config.label_policy, chain)

    @renewed
    def lookup(
        self,
        label: str,
        epoch: int | None = None,
        since: int | None = None,
        *,
        profile: bool = True,
        waits: bool = True,
    ) -> FoundLookup:
        """Return the entry of ``label`` in ``epoch`` (default: the latest), with all proofs.

        ``since`` is the size of the log of map heads that the client trusts. A caller that does not wait gets
        ``SlowError`` where the answer takes more than a few reads of a local store.
        """
        committed = self.committed()
        if not waits and (self.ledger.store.is_shared or epoch not in (None, committed.epoch)):
            raise SlowError
        # Errors of the label come before errors of the epoch.
        name = normalize_label(label, self.config(committed).label_policy)
        wanted = self.kept(committed, epoch)
        index, vrf_proof = self.indexer.locate(name)
        latest = self.published(committed, committed.epoch)
        smh, inclusion = latest.event.smh_bytes, latest.inclusion
        if wanted != committed.epoch:
            smh, inclusion = prove_smh(self.ledger, committed, wanted)
        root = map_root_at(self.ledger, committed, wanted)
        proof, leaf = self.ledger.map.find(root, index)
        mutation = entry_at(self.ledger, root, leaf)
        opening, erasure = self._opened(committed, name, mutation, wanted, waits=waits)
        answer = LookupAnswer(
            latest.event.heads_checkpoint,
            smh,
            inclusion,
            vrf_proof,
            proof,
            mutation,
            None if opening is None else opening.opening,
            erasure,
        )
        shown = opening.profile if profile and opening is not None else None
        return FoundLookup(wanted, answer, shown, self.since(committed, since))

    @renewed
    def history(self, label: str, *, profiles: bool = False, after: int = 0) -> HistoryBody:
        """Return a page of the versions of ``label`` above ``after``, the oldest first.

        With ``profiles`` the newest ones of the page come along, up to 2 MiB together.
        """
        committed = self.committed()
        name = normalize_label(label, self.config(committed).label_policy)
        index, _ = self.indexer.locate(name)
        page: list[tuple[int, Mutation]] = []
        size, more = 0, False
        for epoch, mutation in history(self.ledger, committed, index, after):
            size += _shown_size(mutation)
            more = bool(page) and size > MAX_HISTORY_PAGE
            if more:
                break
            page.append((epoch, mutation))
        versions = []
        room = MAX_HISTORY_PROFILES if profiles else 0
        for epoch, mutation in reversed(page):
            opening, _ = self._opened(committed, name, mutation, committed.epoch)
            profile = None
            if opening is not None and profiles and len(opening.profile) <= room:
                profile = opening.profile
                room -= len(profile)
            shown = None if opening is None else opening.opening
            versions.append(VersionBody(mutation.entry.version, epoch, mutation.encode(), shown, profile))
        return HistoryBody(tuple(reversed(versions)), more)

    @renewed
    def range(self, label: str, first: int, last: int, since: int | None = None) -> RangeBody:
        """Return the entry of ``label`` in each of the epochs ``first`` to ``last``, or in as many as fit."""
        check_range(first, last)
        committed = self.committed()
        name = normalize_label(label, self.config(committed).label_policy)
        self.kept(committed, last, "last")
        self.kept(committed, first, "first")
        index, vrf_proof = self.indexer.locate(name)
        checkpoint = self.published(committed, committed.epoch).event.heads_checkpoint
        answer = answer_range(self.ledger, committed, checkpoint, index, vrf_proof, first=first, last=last)
        reached = first + len(answer.epochs) - 1
        return RangeBody(first, reached, answer.encode(), self.since(committed, since))

    @renewed
    def head(self, epoch: int | None = None, since: int | None = None) -> HeadBody:
        """Return the head of ``epoch``, by default the latest, with its inclusion in the latest log.

        ``since`` is the size of the log of map heads that the client trusts. A smaller log is no answer.
        """
        committed = self.committed()
        _check_reached(committed, since)
        wanted = self._epoch(committed, epoch)
        latest, head = self.published(committed, committed.epoch), self.published(committed, wanted)
        return HeadBody(
            wanted,
            head.event.smh_bytes,
            head.event.heads_checkpoint,
            head.event.mutations_checkpoint,
            head.inclusion,
            latest.event.heads_checkpoint,
        )

    @renewed
    def consistency(self, log: str, size1: int, size2: int) -> tuple[bytes, ...]:
        """Return the proof that ``log`` (heads or mutations) of ``size2`` continues that of ``size1``."""
        committed = self.committed()
        if size1 > size2:
            raise RefusedError(ProblemReason.MALFORMED, "must not be larger than `to`", "from")
        if size2 > (committed.heads.size if log == "heads" else committed.log.size):
            raise RefusedError(ProblemReason.UNKNOWN_EPOCH, f"the log of {log} is not that large", "to")
        return prove_consistency(self.ledger, committed, LOGS[log], size1, size2)

    def current(self, committed: Committed, index: bytes) -> tuple[Mutation, LeafRef] | None:
        """Return the entry at ``index``, whose signatures are not verified, and its leaf in the map."""
        leaf = self.ledger.map.lookup(committed.root, index)
        (mutation,) = self.ledger.mutations_at(committed.root, [leaf])
        return None if leaf is None or mutation is None else (mutation, leaf)

    def _epoch(self, committed: Committed, epoch: int | None, field: str = "epoch") -> int:
        if epoch is None:
            return committed.epoch
        if not 1 <= epoch <= committed.epoch:
            here = f"there are epochs 1 to {committed.epoch} here"
            raise RefusedError(ProblemReason.UNKNOWN_EPOCH, here, field)
        return epoch

    def kept(self, committed: Committed, epoch: int | None, field: str = "epoch") -> int:
        """Return ``_epoch`` for a request that needs the map of this epoch: its pages must not be pruned."""
        wanted, oldest = self._epoch(committed, epoch, field), self.ledger.oldest
        if oldest > committed.epoch:
            raise NotNowError(
                f"this front end is behind: of epoch {committed.epoch}, its latest, the map is not kept"
            )
        if wanted < oldest:
            gone = f"the map of epoch {wanted} is not kept here any more, only those from epoch {oldest} on"
            problem = f"{gone}; ask a front end that keeps more epochs"
            raise RefusedError(ProblemReason.PRUNED_EPOCH, problem, field)
        return wanted

    def published(self, committed: Committed, epoch: int) -> PublishedHead:
        """Return the head of ``epoch``. The one of the committed epoch is kept."""
        latest = self._latest
        if latest is not None and latest.committed is committed and epoch == committed.epoch:
            return latest
        head = PublishedHead(committed, *prove_head(self.ledger, committed, epoch))
        if epoch == committed.epoch:
            self._latest = head
        return head

    def _opened(
        self, committed: Committed, name: str, mutation: Mutation | None, wanted: int, *, waits: bool = True
    ) -> tuple[Opening | None, ErasureProof | None]:
        """Return the opening of an entry, or the proof that it was erased, or None for both if it is unknown.

        An erased opening is never shown again, even while it is still in its stream.
        """
        if mutation is None:
            return None, None
        index = mutation.entry.index
        erasure = prove_erasure(self.ledger, committed, index, mutation.entry_hash, wanted)
        if erasure is not None:
            return None, erasure
        return self.openings.find(name, mutation, waits=waits), None

    def since(self, committed: Committed, since: int | None) -> tuple[bytes, ...]:
        """Prove that the log of heads continues the one of the size ``since``, which the client trusts."""
        if since is None:
            return ()
        _check_reached(committed, since)
        return prove_consistency(self.ledger, committed, HEADS_LOG, since, committed.heads.size)


def _check_reached(committed: Committed, since: int | None) -> None:
    if since is not None and since > committed.heads.size:
        raise NotNowError(
            f"this front end is behind: it has {committed.heads.size} epochs, and {since} were seen before"
        )


def _shown_size(mutation: Mutation) -> int:
    """Return the approximate bytes of JSON of a version, whose entry and signatures are in base64."""
    return _VERSION_SIZE + len(mutation.entry_bytes) * 4 // 3 + _SIGNATURE_SIZE * len(mutation.signatures)
