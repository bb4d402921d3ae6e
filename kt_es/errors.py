"""Errors, split by what the caller does about them.

Every error that reaches a person is one of these, with a sentence that says what was wrong and what
to do. ``exit_code`` is the exit code of the command line (design, surfaces): 1 failure, 2 usage,
3 proven absent, 4 verification failed, 5 equivocation.
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


class VerificationError(KtError):
    """A proof, signature or root does not verify. ``step`` names the check that failed.

    ``evidence`` is where a client kept what it had refused, if it did.
    """

    exit_code = 4

    def __init__(self, step: str, problem: str) -> None:
        super().__init__(f"{step}: {problem}")
        self.step = step
        self.problem = problem
        self.evidence: Path | None = None


class EquivocationError(VerificationError):
    """Two signed statements of the same directory contradict each other; both are evidence."""

    exit_code = 5


class RefusedError(KtError):
    """A submission that the directory will not take. ``reason`` is the verdict's or field's name."""

    def __init__(self, reason: str, problem: str, field: str | None = None) -> None:
        super().__init__(f"{reason}: {problem}")
        self.reason = reason
        self.problem = problem
        self.field = field


class UnavailableError(KtError):
    """The log or a server cannot be reached now; the same call may be repeated."""

    def __init__(self, problem: str, retry_after: float = 2.0) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


class AccessDeniedError(KtError):
    """The log refused these credentials; repeating the call does not help."""


class WrongRevisionError(KtError):
    """An append found its stream at another revision than expected: somebody else wrote."""

    def __init__(self, stream: str, expected: int) -> None:
        super().__init__(f"stream {stream} is not at revision {expected}")
        self.stream = stream
        self.expected = expected


class DivergenceError(KtError):
    """What is stored or published differs from what must stand there. Stop; publish nothing."""

    exit_code = 4


class LockedError(KtError):
    """Another process holds the data directory."""
