"""Batch lookups of a client: many labels in few requests, each answer verified before it is returned."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from kt_es.api.batches import LookupsBody, LookupsRequest
from kt_es.api.codec import decode_model
from kt_es.api.operations import LOOKUPS
from kt_es.client.batches import open_batch, verify_batch
from kt_es.client.directory import keep_sights, recalled
from kt_es.client.session import Session
from kt_es.client.trust import Lookup
from kt_es.client.trusted import Trusted
from kt_es.errors import LabelError, VerificationError
from kt_es.formats.batches import MAX_BATCH
from kt_es.formats.labels import normalize_label


def lookup_many(
    session: Session, labels: Sequence[str], epoch: int | None, profile: bool, deadline: float
) -> list[Lookup]:
    """Look ``labels`` up, in as many requests as needed, and return a lookup for each, in their order.

    Every request is answered from one epoch. Without ``epoch`` a later request may see a later epoch. What a
    request has shown is kept, also if a later request fails.
    """
    policy = session.directory.trusted(deadline).configs[0].config.label_policy
    names = [_normalized(label, place, policy) for place, label in enumerate(labels, 1)]
    missing = list(dict.fromkeys(names))
    found: dict[str, Lookup] = {}
    while missing:
        wanted = missing[:MAX_BATCH]
        ask = partial(_ask, session, wanted, epoch=epoch, profile=profile, deadline=deadline)
        found.update((lookup.label, lookup) for lookup in session.ask(ask, deadline))
        missing = [name for name in missing if name not in found]
    return [found[name] for name in names]


def _normalized(label: str, place: int, policy: str) -> str:
    try:
        return normalize_label(label, policy)
    except LabelError as error:
        raise LabelError(f"number {place} {error.problem}") from None


def _ask(
    session: Session,
    names: Sequence[str],
    trusted: Trusted,
    *,
    epoch: int | None,
    profile: bool,
    deadline: float,
) -> list[Lookup]:
    """Return the lookups of the first of ``names``, at least one."""
    request = LookupsRequest(tuple(names), epoch, trusted.size or None, profile)
    reply = decode_model(LookupsBody, session.transport.post(LOOKUPS.path, request, deadline).body)
    store = session.directory.store
    answer = open_batch(reply.answer)
    if reply.count != len(answer.answers):
        raise VerificationError("answer", f"has {len(answer.answers)} labels, and says {reply.count}")
    after, lookups = verify_batch(
        trusted,
        names,
        answer,
        reply.profiles,
        reply.consistency,
        now=session.now(),
        epoch=epoch,
        slack=session.slack,
        profile_wanted=profile,
        recall=lambda index: recalled(store, index),
    )
    session.directory.advance(trusted, after, deadline)
    keep_sights(store, after, lookups)
    return [session.directory.with_first_use(trusted, lookup) for lookup in lookups]
