"""What is asked of a way: may this label be registered with these keys? And its refusals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn, Protocol

from kt_es.api.operations import ProblemReason
from kt_es.errors import RefusedError

REQUIRED = ProblemReason.REGISTRATION_REQUIRED
REFUSED = ProblemReason.REGISTRATION_REFUSED
FIELD = "registration"


@dataclass(frozen=True, slots=True)
class Claim:
    """The first version of a label that somebody wants to register.

    Attributes:
        label: The normalized label.
        policy: The label policy of the directory.
        binding: What proofs are bound to (``kt_es.formats.registration``).
    """

    label: str
    policy: str
    binding: bytes


class RegistrationError(RefusedError):
    """A label may not be registered. ``ways`` are those in which this front end lets people register."""

    def __init__(self, reason: str, problem: str, ways: tuple[str, ...] = ()) -> None:
        super().__init__(reason, problem, FIELD)
        self.ways = ways


class Way(Protocol):
    """One way to register a label. Safe for threads."""

    @property
    def hint(self) -> str:
        """What a person needs for this way, in words for clients."""

    def check(self, claim: Claim, evidence: str) -> None:
        """Return if ``evidence`` lets its bearer register what ``claim`` says.

        Raises:
            RegistrationError: It does not. The message says why, and repeats no part of either.
            UnavailableError: It cannot be checked now.
        """


def refuse(problem: str) -> NoReturn:
    """Raise the error of a proof that is not accepted."""
    raise RegistrationError(REFUSED, problem)
