"""The errors of kt-es, grouped by how a caller handles them.

Every error that is shown to a person is one of these. The message says what failed, with which value, and
what to do. ``exit_code`` is the exit code of the command line (docs/DESIGN.md, section 9):

  1 failure, 2 usage, 3 proven absent, 4 verification failed, 5 contradiction proven,
  6 a watched account was changed, but not by its owner, 7 cannot tell (stale, outage, clock),
  8 too few witnesses or monitors vouch for what was shown
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def counted(number: int, things: str) -> str:
    """Return ``number`` with a noun: "1 entry", "2 entries". ``things`` is the regular plural of the noun."""
    if number != 1:
        return f"{number} {things}"
    return f"1 {things[:-3]}y" if things.endswith("ies") else f"1 {things[:-1]}"


class KtError(Exception):
    """Any error of kt-es that is meant to be shown to a person."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        # Processes of one front end tell each other. By default the arguments would be the message alone.
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[KtError], arguments: tuple[object, ...], members: dict[str, object]) -> KtError:
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    error.__dict__.update(members)
    return error


class ConfigError(KtError):
    """The configuration, a key file, a path or an option is unusable. Nothing was started."""

    exit_code = 2


class MalformedError(KtError):
    """Bytes do not follow their format. ``what`` names the format or field."""

    def __init__(self, what: str, problem: str) -> None:
        super().__init__(f"{what}: {problem}")
        self.what = what
        self.problem = problem


class LabelError(MalformedError):
    """A label is not valid in this directory."""

    exit_code = 2

    def __init__(self, problem: str) -> None:
        super().__init__("label", problem)


class VerificationError(KtError):
    """A proof, signature or root does not verify. ``step`` names the check that failed."""

    exit_code = 4

    def __init__(self, step: str, problem: str) -> None:
        super().__init__(f"{step}: {problem}")
        self.step = step
        self.problem = problem


class EquivocationError(VerificationError):
    """Two signed statements of one directory contradict each other.

    ``evidence`` is the encoded evidence file (FORMATS, "Evidence"), which proves the contradiction to anyone.
    ``saved`` is the path of the saved file. It is None if the evidence is not saved yet or cannot be saved.
    The error is valid in both cases; a program that shows the error prints the evidence if ``saved`` is None.
    """

    exit_code = 5

    def __init__(self, step: str, problem: str, evidence: bytes | None = None) -> None:
        super().__init__(step, problem)
        self.evidence = evidence
        self.saved: Path | None = None


class WatchAlarmError(KtError):
    """A watched account changed, and the owner did not make the change."""

    exit_code = 6


class CannotTellError(KtError):
    """A check could not be decided, for example because of a stale head, wrong clocks or a silent server.

    ``step`` names the check. Nothing was proven, so there is no evidence.
    """

    exit_code = 7

    def __init__(self, step: str, problem: str) -> None:
        super().__init__(f"{step}: {problem}")
        self.step = step
        self.problem = problem


class StaleHeadError(CannotTellError):
    """The latest head is older than the directory promises. Normal just after the directory starts."""


class NoQuorumError(CannotTellError):
    """Too few witnesses or monitors vouch for the log, by the policy of whoever asked. Step "policy"."""

    exit_code = 8

    def __init__(self, problem: str) -> None:
        super().__init__("policy", problem)


class RefusedError(KtError):
    """The directory refuses a submission. ``reason`` is the name of the verdict or field."""

    def __init__(self, reason: str, problem: str, field: str | None = None) -> None:
        super().__init__(f"{reason}: {problem}")
        self.reason = reason
        self.problem = problem
        self.field = field


class UnavailableError(KtError):
    """The log or a server cannot be reached now. The same call may be repeated."""

    exit_code = 7

    def __init__(self, problem: str, retry_after: float = 2.0) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


class DiskFullError(UnavailableError):
    """A file system is full, or a quota is used up. Nothing was written at ``where``, a directory or file."""

    def __init__(self, where: Path) -> None:
        super().__init__(
            f"{where} cannot be written: its disk is full or a quota is used up; make room there",
            retry_after=10.0,
        )
        self.where = where


class StoreAwayError(UnavailableError):
    """The shared store cannot be reached, or too few of its replicas can."""


class MisfitError(UnavailableError):
    """The server speaks another protocol, or the TLS handshake with it fails.

    Processes try again, because servers are moved and certificates are replaced. Commands do not wait.
    """


class TlsError(MisfitError):
    """The TLS handshake with the log fails, for example because a certificate or a name is not accepted."""


class AccessDeniedError(KtError):
    """The log refused these credentials. The call can succeed only after somebody grants the missing right.

    ``right`` is the missing right as an ACL names it (``$r``, ``$w``, ``$mr``, ``$mw``), and ``stream`` is
    the stream that it applies to. Both are empty if the missing right does not concern a stream.
    """

    def __init__(self, problem: str, stream: str = "", right: str = "") -> None:
        super().__init__(problem)
        self.stream = stream
        self.right = right


class WrongRevisionError(KtError):
    """The stream was not at the expected revision, because somebody else wrote to it."""

    def __init__(self, stream: str, expected: int) -> None:
        super().__init__(f"stream {stream} is not at revision {expected}")
        self.stream = stream
        self.expected = expected


class StreamGoneError(KtError):
    """The stream is deleted permanently (tombstoned). It can no longer be read or appended to."""


class DivergenceError(KtError):
    """Stored or published data differ from what they must be. The process must stop and publish nothing."""

    exit_code = 4


class UnverifiedRowError(DivergenceError):
    """A stored row is missing, damaged, or not the one that a signed head needs.

    A process stops if the store is its own. Replicas of a shared store may agree later, and operators mend it
    while its users go on, so they try again (``Ledger.passing``).
    """


class AnotherDirectoryError(DivergenceError):
    """A stored state is of another directory than the one that was named."""


class RollbackError(DivergenceError):
    """The log ends before the last head that was verified here, so heads were removed from it."""


class LockedError(KtError):
    """Another process uses the data directory."""
