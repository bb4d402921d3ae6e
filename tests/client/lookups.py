"""A directory of five epochs, and the check of an honest answer about it with one part replaced."""

from __future__ import annotations

from kt_es.client.trust import Lookup, verify_lookup
from kt_es.client.trusted import Pinned, Trusted
from kt_es.formats.proofs import LookupAnswer
from tests import builders as b
from tests.reference.directory import Directory

PINNED = Pinned(b.ORIGIN, b.SIGNER_KEY)
OTHER = b.private_key("somebody else")


def built() -> Directory:
    """Five epochs: alice from the first, bob and twenty others from the second, alice again in the fourth."""
    directory = Directory()
    directory.put_user("alice")
    directory.advance()
    for user in ("bob", *(f"user{n}" for n in range(20))):
        directory.put_user(user)
    directory.advance()
    directory.advance()
    directory.put_user("alice", 2)
    directory.advance()
    directory.advance()
    return directory


def check(
    directory: Directory,
    trusted: Trusted,
    answer: LookupAnswer | None = None,
    *,
    user: str = "alice",
    profile: bytes | None = None,
    consistency: tuple[bytes, ...] | None = None,
    now: int | None = None,
    epoch: int | None = None,
) -> tuple[Trusted, Lookup]:
    """``verify_lookup`` of an honest answer about ``user``, but for what is passed in."""
    answer = answer or directory.answer(b.label_of(user), epoch)
    if consistency is None:
        consistency = directory.consistency(trusted.size, len(directory.heads))
    return verify_lookup(
        trusted,
        b.label_of(user),
        answer,
        profile if profile is not None else directory.profile(answer),
        consistency,
        now=directory.now if now is None else now,
        epoch=epoch,
    )
