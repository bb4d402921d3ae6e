"""One client's dealings with one server: whom it trusts, what it stores, how it looks up.

The order is always the same: fetch, verify, store the new trusted state, return. Deadlines are those of
``transport``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kt_es.client import wire
from kt_es.client.state import StateStore
from kt_es.client.transport import Answer, Transport
from kt_es.client.trust import Lookup, open_answer, verify_lookup
from kt_es.client.trusted import Pinned, Trusted, begin, extend, first_use, merge, verify_consistency
from kt_es.errors import EquivocationError, KtError, VerificationError
from kt_es.formats.labels import normalize_label
from kt_es.formats.notes import encode_base64

# A front end may be a moment behind the one that answered before.
_LAG_PAUSES = (0.1, 0.2, 0.4, 0.8)


class Session:
    """Safe for threads: all it keeps is in ``state``, whose ``replace`` compares before it sets."""

    def __init__(
        self,
        transport: Transport,
        state: StateStore,
        *,
        pinned: Pinned | None,
        origin: str | None,
        slack: int,
        now: Callable[[], int],
    ) -> None:
        self.transport = transport
        self.on_first_use = False
        self._state = state
        self._pinned = pinned
        self._origin = origin if pinned is None else origin or pinned.origin
        self._slack = slack
        self._now = now

    def trusted(self, deadline: float) -> Trusted:
        """The stored state, or the one to begin with; of the directory that the caller expects."""
        stored = self._state.load()
        while stored is None:
            stored = self._begin(deadline)
        if self._origin is not None and stored.origin != self._origin:
            raise self._refused("config", f"the directory is {stored.origin}, not {self._origin}", stored)
        if self._pinned is not None and not _holds(stored, self._pinned):
            _, stored = self.refresh(stored, deadline)
            if not _holds(stored, self._pinned):
                raise self._refused("config", "the expected key is not the directory's", stored)
        return stored

    def _begin(self, deadline: float) -> Trusted | None:
        told, answer = self._directory(deadline)
        pinned = self._pinned or first_use(told.configs)
        origin = self._origin or told.origin
        try:
            if told.origin != origin or pinned.origin != origin:
                raise VerificationError("config", f"the directory is {told.origin}, not {origin}")  # noqa: TRY301
            trusted = begin(pinned, told.configs)
        except VerificationError as error:
            self.keep_evidence(error, None, answer)
            raise
        if not self._state.replace(None, trusted):
            return self._state.load()
        self.on_first_use = self._pinned is None
        return trusted

    def _directory(self, deadline: float) -> tuple[wire.DirectoryAnswer, Answer]:
        """What the server says of the directory; only its form is checked."""
        answer = self.transport.get("/v1/directory", deadline)
        return wire.read_directory(answer.body), answer

    def refresh(self, trusted: Trusted, deadline: float) -> tuple[wire.DirectoryAnswer, Trusted]:
        """What the server says of the directory now, and ``trusted`` extended by its configs, stored."""
        told, answer = self._directory(deadline)
        try:
            extended = extend(trusted, told.configs)
        except VerificationError as error:
            self.keep_evidence(error, trusted, answer)
            raise
        return told, trusted if extended is trusted else self.store(trusted, extended, deadline)

    def store(self, base: Trusted, after: Trusted, deadline: float) -> Trusted:
        """Store ``after``, which was verified against ``base``; what is stored then.

        Where another thread or process stored something since, both are shown to be of one log.
        """
        while not self._state.replace(base, after):
            stored = self._state.load()
            if stored is None:
                raise self._refused("consistency", "the trusted state was removed meanwhile", after)
            proof = self.path("heads", stored.size, after.size, deadline)
            try:
                after = merge(stored, after, proof)
            except VerificationError as error:
                self.keep_evidence(error, stored, None, other=after)
                raise
            base = stored
        return after

    def path(self, log: str, first: int, second: int, deadline: float) -> tuple[bytes, ...]:
        """The server's consistency proof between two sizes in either order; empty where none is needed."""
        low, high = sorted((first, second))
        if low in (0, high):
            return ()
        answer = self.transport.get(f"/v1/consistency?log={log}&from={low}&to={high}", deadline)
        return wire.read_consistency(answer.body)

    def lookup(self, label: str, epoch: int | None, profile: bool, deadline: float) -> Lookup:
        """``trust.verify_lookup`` of what the server answers; the new state is stored."""
        lags = iter(_LAG_PAUSES)
        while True:
            trusted = self.trusted(deadline)
            label = normalize_label(label, trusted.configs[0].config.label_policy)
            body = {"label": label, "epoch": epoch, "since": trusted.size or None, "profile": profile}
            answer = self.transport.post("/v1/lookup", body, deadline)
            try:
                after, lookup = self._verify(trusted, label, epoch, profile, answer)
            except VerificationError as error:
                # A key rotation that this client has not heard of yet looks like a wrong key.
                rotated = error.step in ("config", "checkpoint")
                if rotated and self.refresh(trusted, deadline)[1].configs != trusted.configs:
                    continue
                if error.step == "rollback" and (pause := next(lags, None)) is not None:
                    time.sleep(pause)
                    continue
                if error.step == "consistency":
                    self._confront(trusted, deadline)
                self.keep_evidence(error, trusted, answer, request=body)
                raise
            self.store(trusted, after, deadline)
            if self.on_first_use:
                line = f"directory key pinned on first use: {trusted.pinned.vkey}"
                lookup = replace(lookup, checks=(line, *lookup.checks))
            return lookup

    def _confront(self, trusted: Trusted, deadline: float) -> None:
        """Ask for the head of the epoch that is trusted, after a proof that does not lead on from it.

        A proof that fails shows nothing by itself; another signed checkpoint of the very same size does:
        raises ``EquivocationError``, both checkpoints kept as evidence. A server that will not say leaves
        the failure what it was.
        """
        try:
            answer = self.transport.get(f"/v1/heads/{trusted.size}", deadline)
            told = wire.read_head(answer.body)
            other = trusted.open(told.heads_checkpoint, 0)
            verify_consistency(trusted.opened(), other, ())
        except EquivocationError as error:
            self.keep_evidence(error, trusted, answer)
            raise
        except KtError:
            return

    def _verify(
        self, trusted: Trusted, label: str, epoch: int | None, profile: bool, answer: Answer
    ) -> tuple[Trusted, Lookup]:
        reply = wire.read_lookup(answer.body)
        return verify_lookup(
            trusted,
            label,
            open_answer(reply.answer),
            reply.profile,
            reply.consistency,
            now=self._now(),
            epoch=epoch,
            slack=self._slack,
            profile_wanted=profile,
        )

    def keep_evidence(
        self,
        error: VerificationError,
        trusted: Trusted | None,
        answer: Answer | None,
        *,
        request: object = None,
        other: Trusted | None = None,
    ) -> Path | None:
        """Keep what a refusal is based on (FORMATS, "Evidence"), and name it in ``error.evidence``."""
        at = self._now()
        content = {
            "kind": "kt-es evidence v1",
            "at": at,
            "server": self.transport.base_url,
            "step": error.step,
            "problem": error.problem,
            "request": request,
            "answer": None if answer is None else encode_base64(answer.data),
            "trusted": None if trusted is None else encode_base64(trusted.encode()),
            "other": None if other is None else encode_base64(other.encode()),
        }
        data = json.dumps(content, ensure_ascii=False, indent=1).encode()
        return self._state.keep_evidence(f"{error.step.replace(' ', '-')}-{at}", data)

    def _refused(self, step: str, problem: str, trusted: Trusted) -> VerificationError:
        error = VerificationError(step, problem)
        self.keep_evidence(error, trusted, None)
        return error


def _holds(trusted: Trusted, pinned: Pinned) -> bool:
    """Whether the pinned key is one of the verified chain."""
    return pinned.key in [signed.config.signer_key for signed in trusted.configs]
