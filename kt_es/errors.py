"""Errors, split by what the caller does about them.

Every error that reaches a person is one of these. Its sentence says what failed, with which value, and
what to do. ``exit_code`` is the exit code of the command line (docs/DESIGN.md, section 9):

  1 failure, 2 usage, 3 proven absent, 4 verification failed, 5 contradiction proven,
  6 a watched account changed and it was not its owner, 7 cannot tell (stale, outage, clock)
"""

from __future__ import annotations

from pathlib import Path


class KtError(Exception):
    """Any error of kt-es that is meant to be shown to a person."""

    exit_code = 1


class ConfigError(KtError):
    """The configuration, a key file, a path or an option is unusable; nothing was started."""

    exit_code = 2


class MalformedError(KtError):
    """Bytes are not what their format demands. ``what`` names the format or field."""

    def __init__(self, what: str, problem: str) -> None:
        super().__init__(f"{what}: {problem}")
        self.what = what
        self.problem = problem


class LabelError(MalformedError):
    """A label is not one that the directory can have."""

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

    ``evidence`` is the encoded evidence file (FORMATS, "Evidence") that proves it to anyone. ``saved`` is
    the file that holds it; None while it is not saved, or where it cannot be saved. The verdict does not
    depend on saving: whoever shows the error prints the evidence where ``saved`` is None.
    """

    exit_code = 5

    def __init__(self, step: str, problem: str, evidence: bytes | None = None) -> None:
        super().__init__(step, problem)
        self.evidence = evidence
        self.saved: Path | None = None


class WatchAlarmError(KtError):
    """A watched account changed, and its owner did not change it."""

    exit_code = 6


class CannotTellError(KtError):
    """Neither success nor proof of a lie: a stale head, clocks that differ, silence.

    ``step`` names the check that could not be decided. There is no evidence of it: nothing was proven.
    """

    exit_code = 7

    def __init__(self, step: str, problem: str) -> None:
        super().__init__(f"{step}: {problem}")
        self.step = step
        self.problem = problem


class StaleHeadError(CannotTellError):
    """The latest head is older than the directory promises; a directory that was just started has such."""


class RefusedError(KtError):
    """A submission that the directory will not take. ``reason`` is the verdict's or field's name."""

    def __init__(self, reason: str, problem: str, field: str | None = None) -> None:
        super().__init__(f"{reason}: {problem}")
        self.reason = reason
        self.problem = problem
        self.field = field


class UnavailableError(KtError):
    """The log or a server cannot be reached now; the same call may be repeated."""

    exit_code = 7

    def __init__(self, problem: str, retry_after: float = 2.0) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


class DiskFullError(UnavailableError):
    """A file system is full, or a quota on it is used up: nothing was written, and waiting for space helps.

    ``where`` is the directory or file that could not be written.
    """

    def __init__(self, where: Path) -> None:
        super().__init__(
            f"{where} cannot be written: its disk is full or a quota is used up; make room there",
            retry_after=10.0,
        )
        self.where = where


class MisfitError(UnavailableError):
    """What answers speaks another protocol, or TLS with it cannot be agreed on.

    Processes try again, since servers are moved and certificates replaced; whoever runs once does not
    wait for that.
    """


class TlsError(MisfitError):
    """TLS with the log cannot be agreed on: a certificate or a name is not accepted."""


class AccessDeniedError(KtError):
    """The log refused these credentials; repeating the call helps only after somebody has granted the right.

    ``right`` is the missing right as an ACL names it (``$r``, ``$w``, ``$mr``, ``$mw``) and ``stream`` the
    stream that it is a right to; both are empty where the right is none of a stream.
    """

    def __init__(self, problem: str, stream: str = "", right: str = "") -> None:
        super().__init__(problem)
        self.stream = stream
        self.right = right


class WrongRevisionError(KtError):
    """An append found its stream at another revision than expected: somebody else wrote."""

    def __init__(self, stream: str, expected: int) -> None:
        super().__init__(f"stream {stream} is not at revision {expected}")
        self.stream = stream
        self.expected = expected


class StreamGoneError(KtError):
    """A stream was tombstoned: nothing can be read there or appended any more."""


class DivergenceError(KtError):
    """What is stored or published differs from what must stand there. Stop; publish nothing."""

    exit_code = 4


class RollbackError(DivergenceError):
    """A log ends before the last head that was verified here: somebody took heads back."""


class LockedError(KtError):
    """Another process holds the data directory."""
