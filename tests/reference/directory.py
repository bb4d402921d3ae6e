"""A whole directory in memory: real signatures, VRF, decisions and heads over the naive map and log.

Slow and obvious. It answers lookups as values, and over HTTP through ``handle``, so that a client can be
tested without any of the servers.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import httpx

from kt_es.api.batches import LookupsBody
from kt_es.api.codec import encode_model
from kt_es.api.models import (
    ConsistencyBody,
    DirectoryBody,
    ErasureBody,
    HeadBody,
    HistoryBody,
    LookupBody,
    RangeBody,
    VerdictBody,
    VersionBody,
)
from kt_es.crypto.hashes import log_leaf_hash
from kt_es.crypto.signatures import PrivateKey
from kt_es.crypto.vrf import index_of
from kt_es.epochs import Current, Epoch, Parsed, Standing, close, decide
from kt_es.formats.batches import BatchAnswer, LabelAnswer
from kt_es.formats.configs import SignedConfig
from kt_es.formats.entries import Mutation
from kt_es.formats.erasures import Erasure, ErasureReason
from kt_es.formats.heads import Checkpoint, SignedMapHead, heads_origin, mutations_origin, sign_checkpoint
from kt_es.formats.labels import normalize_label
from kt_es.formats.proofs import ErasureProof, LookupAnswer, encode_configs
from kt_es.formats.queue import Item, ItemKind, Record, Verdict
from kt_es.formats.ranges import RangeAnswer, RangeEpoch
from kt_es.merkle.multiproof import combine
from kt_es.merkle.verify import MapProof
from tests import builders as b
from tests.reference import naive_log, naive_map

INTERVAL = 10_000


@dataclass
class Published:
    smh: SignedMapHead
    entries: dict[bytes, bytes]
    log_size: int
    key: PrivateKey


@dataclass
class Directory:
    """``put`` and ``advance`` make epochs; ``answer`` is what a front end says about one."""

    signer: PrivateKey = b.SIGNER
    standing: Standing = field(default_factory=lambda: Standing(b.ORIGIN, b.SIGNER_KEY))
    configs: list[SignedConfig] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)
    heads: list[Published] = field(default_factory=list)
    mutations: dict[bytes, Mutation] = field(default_factory=dict)
    private: dict[bytes, tuple[bytes, bytes]] = field(default_factory=dict)
    versions: dict[bytes, list[tuple[int, bytes]]] = field(default_factory=dict)
    erasures: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    epoch: Epoch = field(init=False)
    successor: PrivateKey | None = None
    forced: dict[bytes, Mutation | None] = field(default_factory=dict)
    page: int = 1_000

    def __post_init__(self) -> None:
        self.epoch = Epoch.after(self.standing)
        assert self.decide(b.signed_config()) == Verdict.CONFIG
        self.configs.append(b.signed_config())

    @property
    def entries(self) -> dict[bytes, bytes]:
        return self.heads[-1].entries if self.heads else {}

    @property
    def now(self) -> int:
        """A moment after the latest head, ms."""
        return self.heads[-1].smh.head.timestamp + 1_000

    def decide(self, parsed: Parsed) -> Verdict:
        current = None
        index = parsed.entry.index if isinstance(parsed, Mutation) else b""
        index = parsed.index if isinstance(parsed, Erasure) else index
        if held := self.entries.get(index):
            current = Current(self.mutations[held].entry, held)
        verdict = decide(self.epoch, parsed, current)
        item = b.item(parsed, len(self.records))  # type: ignore[arg-type]
        self.records.append(Record(len(self.records), item, verdict).encode())
        return verdict

    def put(self, mutation: Mutation, opening: bytes, profile: bytes) -> Verdict:
        verdict = self.decide(mutation)
        if verdict == Verdict.ACCEPTED:
            self.mutations[mutation.entry_hash] = mutation
            self.private[mutation.entry_hash] = (opening, profile)
        return verdict

    def put_user(self, user: str, version: int = 1) -> Verdict:
        """The next version of one of the builders' users."""
        held = self.entries.get(b.index(user))
        made = b.mutation(user, version, held)
        return self.put(made, b.opening(user, version), b.profile(user, version))

    def erase(self, user: str, key: PrivateKey, reason: ErasureReason = ErasureReason.OWNER) -> None:
        """Erase the profile of the entry that stands at ``user``; the epoch in the making proves it."""
        held = self.entries[b.index(user)]
        made = Erasure.sign(b.index(user), held, reason, b.ORIGIN, key)
        item = Item(len(self.records), 0, ItemKind.ERASURE, made.encode())
        self.erasures[held] = (self.epoch.number, len(self.records))
        self.records.append(Record(len(self.records), item, Verdict.ERASED).encode())
        del self.private[held]

    def rotate(self, successor: PrivateKey) -> Verdict:
        current = self.configs[-1].config
        config = replace(current, signer_keys=(b.public(successor),), previous=current.hash)
        signed = SignedConfig.sign(config, [self.signer, successor])
        verdict = self.decide(signed)
        self.configs.append(signed)
        self.successor = successor
        return verdict

    def advance(self) -> int:
        """Close the epoch with a marker and publish its head; the epoch's number."""
        number = self.epoch.number
        assert self.decide(b.marker(b.START + INTERVAL * number, key=self.signer)) == Verdict.EPOCH
        accepted = b.accepted(self.epoch)
        entries = {**self.entries, **accepted}
        for index, entry_hash in accepted.items():
            self.versions.setdefault(index, []).append((number, entry_hash))
        self._lie(entries)
        head, self.standing = close(
            self.epoch,
            map_root=naive_map.root(entries),
            map_size=len(entries),
            log_size=len(self.records),
            log_root=naive_log.root([log_leaf_hash(record) for record in self.records]),
            queue_next=len(self.records),
        )
        smh = SignedMapHead.sign(head, self.signer)
        self.heads.append(Published(smh, entries, len(self.records), self.signer))
        self.signer, self.successor = self.successor or self.signer, None
        self.epoch = Epoch.after(self.standing)
        return number

    def _lie(self, entries: dict[bytes, bytes]) -> None:
        """Put into the map what nobody submitted, or take out what stands there."""
        for index, mutation in self.forced.items():
            if mutation is None:
                entries.pop(index, None)
            else:
                entries[index] = mutation.entry_hash
                self.mutations[mutation.entry_hash] = mutation
        self.forced.clear()

    def leaves(self, size: int) -> list[bytes]:
        return [log_leaf_hash(published.smh.encode()) for published in self.heads[:size]]

    def heads_checkpoint(self, size: int) -> str:
        origin = heads_origin(b.ORIGIN)
        made = Checkpoint(origin, size, naive_log.root(self.leaves(size)))
        return sign_checkpoint(made, origin, self.heads[size - 1].key)

    def mutations_checkpoint(self, size: int) -> str:
        origin = mutations_origin(b.ORIGIN)
        head = self.heads[size - 1].smh.head
        return sign_checkpoint(
            Checkpoint(origin, head.log_size, head.log_root), origin, self.heads[size - 1].key
        )

    def consistency(self, first: int, second: int, log: str = "heads") -> tuple[bytes, ...]:
        if first == 0 or first >= second:
            return ()
        if log == "mutations":
            return tuple(naive_log.consistency(first, [log_leaf_hash(one) for one in self.records[:second]]))
        return tuple(naive_log.consistency(first, self.leaves(second)))

    def answer(self, label: str, epoch: int | None = None, size: int | None = None) -> LookupAnswer:
        """The lookup of ``label`` in ``epoch``, with the heads log as it was at ``size``."""
        size = size or len(self.heads)
        epoch = epoch or size
        published = self.heads[epoch - 1]
        beta, proof = b.VRF.prove(normalize_label(label, "email").encode())
        held = published.entries.get(index_of(beta))
        return LookupAnswer(
            self.heads_checkpoint(size),
            published.smh.encode(),
            tuple(naive_log.inclusion(epoch - 1, self.leaves(size))),
            proof,
            naive_map.prove(published.entries, index_of(beta)),
            None if held is None else self.mutations[held],
            None if held is None or held not in self.private else self.private[held][0],
            None if held is None else self.erasure(held, size),
        )

    def batch_answer(self, labels: Sequence[str], epoch: int | None = None) -> BatchAnswer:
        """The batch lookup of ``labels`` in ``epoch``."""
        answers = [self.answer(label, epoch) for label in labels]
        indices = [index_of(b.VRF.prove(normalize_label(label, "email").encode())[0]) for label in labels]
        proof = combine([(index, one.map_proof) for index, one in zip(indices, answers, strict=True)])
        parts = [LabelAnswer(one.vrf_proof, one.mutation, one.opening, one.erasure) for one in answers]
        head = answers[0].heads_checkpoint, answers[0].smh_bytes, answers[0].heads_inclusion
        return BatchAnswer(*head, proof, tuple(parts))

    def erasure(self, entry_hash: bytes, size: int) -> ErasureProof | None:
        """That the profile of an entry was erased, under the heads log of ``size``."""
        if entry_hash not in self.erasures or self.erasures[entry_hash][0] > size:
            return None
        epoch, sequence = self.erasures[entry_hash]
        published = self.heads[epoch - 1]
        leaves = [log_leaf_hash(record) for record in self.records[: published.log_size]]
        return ErasureProof(
            self.records[sequence],
            tuple(naive_log.inclusion(sequence, leaves)),
            published.smh.encode(),
            tuple(naive_log.inclusion(epoch - 1, self.leaves(size))),
        )

    def range_answer(self, label: str, first: int, last: int) -> RangeAnswer:
        """What stood at ``label`` from the epoch ``first`` to the epoch ``last``."""
        beta, proof = b.VRF.prove(normalize_label(label, "email").encode())
        index = index_of(beta)
        named: dict[Mutation, int] = {}
        epochs = []
        for published in self.heads[first - 1 : last]:
            held = published.entries.get(index)
            at = None if held is None else named.setdefault(self.mutations[held], len(named))
            shown = naive_map.prove(published.entries, index)
            epochs.append(RangeEpoch(published.smh.encode(), shown, at))
        size = len(self.heads)
        heads_proof = tuple(naive_log.range_proof(first - 1, first - 1 + len(epochs), self.leaves(size)))
        return RangeAnswer(
            self.heads_checkpoint(size), proof, tuple(named), first, heads_proof, tuple(epochs)
        )

    def profile(self, answer: LookupAnswer) -> bytes | None:
        if answer.mutation is None or answer.opening is None:
            return None
        return self.private[answer.mutation.entry_hash][1]

    def handle(self, request: httpx.Request) -> httpx.Response:
        """The HTTP interface, as far as a client uses it."""
        body = json.loads(request.content) if request.content else {}
        match request.method, request.url.path:
            case "GET", "/v1/directory":
                return _json(DirectoryBody(b.ORIGIN, "people", "email", encode_configs(self.configs)))
            case "POST", "/v1/lookup":
                return self._lookup(body)
            case "POST", "/v1/lookups":
                return self._lookups(body)
            case "POST", "/v1/range":
                return self._range(body)
            case "POST", "/v1/mutations":
                return self._submit(body)
            case "POST", "/v1/mutations/batch":
                return httpx.Response(200, json={"outcomes": self._submit_many(body["submissions"])})
            case "POST", "/v1/erasures":
                return self._erase(body)
            case "POST", "/v1/history":
                return self._history(body)
            case "GET", "/v1/consistency":
                first, second = int(request.url.params["from"]), int(request.url.params["to"])
                log = request.url.params["log"]
                return _json(ConsistencyBody(tuple(self.consistency(first, second, log))))
            case "GET", path if path.startswith("/v1/heads/"):
                wanted = path.rpartition("/")[2]
                return self._head(len(self.heads) if wanted == "latest" else int(wanted))
        return problem(404, "not-found", "there is no such resource")

    def _lookup(self, body: dict[str, object]) -> httpx.Response:
        epoch = body["epoch"]
        if epoch is not None and not 1 <= epoch <= len(self.heads):  # type: ignore[operator]
            return problem(404, "unknown-epoch", "there is no such epoch yet", "epoch")
        answer = self.answer(body["label"], epoch)  # type: ignore[arg-type]
        shown = self.profile(answer) if body["profile"] else None
        proof = self.consistency(body["since"] or 0, len(self.heads))  # type: ignore[arg-type]
        number = SignedMapHead.decode(answer.smh_bytes).head.epoch
        return _json(LookupBody(number, answer.encode(), shown, tuple(proof)))

    def _lookups(self, body: dict[str, object]) -> httpx.Response:
        """A batch lookup, of at most ``page`` labels."""
        epoch, labels = body["epoch"], list(body["labels"])[: self.page]  # type: ignore[call-overload]
        if epoch is not None and not 1 <= epoch <= len(self.heads):  # type: ignore[operator]
            return problem(404, "unknown-epoch", "there is no such epoch yet", "epoch")
        answer = self.batch_answer(labels, epoch)  # type: ignore[arg-type]
        whole = [answer.lookup(at, MapProof((), None)) for at in range(len(labels))]
        shown = [self.profile(one) if body["profile"] else None for one in whole]
        proof = self.consistency(body["since"] or 0, len(self.heads))  # type: ignore[arg-type]
        number = SignedMapHead.decode(answer.smh_bytes).head.epoch
        return _json(LookupsBody(number, len(labels), answer.encode(), tuple(shown), tuple(proof)))

    def _range(self, body: dict[str, object]) -> httpx.Response:
        first, last = int(str(body["first"])), int(str(body["last"]))
        if not 1 <= first <= last <= len(self.heads):
            return problem(404, "unknown-epoch", "there is no such epoch yet", "last")
        if last - first >= 256:
            return problem(400, "malformed", "the range has more than 256 epochs", "last")
        answer = self.range_answer(str(body["label"]), first, last)
        proof = self.consistency(body["since"] or 0, len(self.heads))  # type: ignore[arg-type]
        return _json(RangeBody(first, last, answer.encode(), tuple(proof)))

    def _submit(self, body: dict[str, str]) -> httpx.Response:
        mutation = Mutation.decode(base64.b64decode(body["mutation"]))
        known = self.entries.get(mutation.entry.index)
        if known == mutation.entry_hash:
            verdict = Verdict.ACCEPTED
        else:
            opened = base64.b64decode(body["opening"]), base64.b64decode(body["profile"])
            verdict = self.put(mutation, *opened)
            self.advance()
        if not verdict.succeeded:
            return problem(409, verdict.label, "the change was refused", verdict=verdict.label)
        return _json(VerdictBody(mutation.entry_hash.hex(), verdict.label, len(self.heads), None))

    def _submit_many(self, submissions: list[dict[str, str]]) -> list[dict[str, object]]:
        """The outcomes of submissions that are decided one after the other."""
        answers = [self._submit(one) for one in submissions]
        return [{"verdict" if one.status_code == 200 else "problem": one.json()} for one in answers]

    def _erase(self, body: dict[str, str]) -> httpx.Response:
        erasure = Erasure.decode(base64.b64decode(body["erasure"]))
        verdict = self.decide(erasure)
        if verdict != Verdict.ERASED:
            return problem(403, verdict.label, "another key", verdict=verdict.label)
        self.erasures[erasure.entry_hash] = (self.epoch.number, len(self.records) - 1)
        self.private.pop(erasure.entry_hash, None)
        self.advance()
        return _json(ErasureBody(erasure.entry_hash.hex(), None, len(self.heads)))

    def _history(self, body: dict[str, str]) -> httpx.Response:
        """A page of versions, of at most ``page``."""
        index = index_of(b.VRF.prove(body["label"].encode())[0])
        after = int(body["after"])
        told = self.versions.get(index, [])[after:]
        versions = []
        for epoch, entry_hash in told[: self.page]:
            mutation = self.mutations[entry_hash]
            opened, shown = self.private.get(entry_hash, (None, None))
            profile = shown if body["profiles"] else None
            versions.append(VersionBody(mutation.entry.version, epoch, mutation.encode(), opened, profile))
        return _json(HistoryBody(tuple(versions), len(told) > self.page))

    def _head(self, epoch: int) -> httpx.Response:
        return _json(
            HeadBody(
                epoch,
                self.heads[epoch - 1].smh.encode(),
                self.heads_checkpoint(epoch),
                self.mutations_checkpoint(epoch),
                tuple(naive_log.inclusion(epoch - 1, self.leaves(len(self.heads)))),
                self.heads_checkpoint(len(self.heads)),
            )
        )


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _json(answer: object) -> httpx.Response:
    return httpx.Response(200, content=json.dumps(encode_model(answer)).encode())


def problem(
    status: int, reason: str, detail: str, field_: str | None = None, *, verdict: str | None = None
) -> httpx.Response:
    body = {"type": "about:blank", "status": status, "reason": reason, "detail": detail}
    if field_:
        body["field"] = field_
    if verdict:
        body["verdict"] = verdict
    return httpx.Response(
        status, content=json.dumps(body).encode(), headers={"content-type": "application/problem+json"}
    )
