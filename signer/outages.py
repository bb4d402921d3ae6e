"""The outages of a signer's loop: which step failed, and whether it works again.

After each error the loop begins anew (``service.run_forever``). A loop that has joined the group can reach
the event log. But it may soon need the row of a shared store that ended the loop before. So an outage of the
shared store ends only when the step that failed has succeeded: once, or often enough if the patrol, which
reads other rows at each step, found a wrong one.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import structlog

from kt_es.errors import KtError, UnverifiedRowError
from kt_es.process.outage import Outage, kind_of
from signer.metrics import SignerMetrics

PATROLS = 30
"""Steps of the patrol that must succeed, one after the other, after a wrong row.

They take an active signer half a minute, and a standby half of that.
"""

_LOG = structlog.get_logger("signer")


class Step(Enum):
    """What a loop does: start and read the queue, compare published events, or build an epoch."""

    START = "start"
    PATROL = "patrol"
    EPOCH = "epoch"


class LoopOutages:
    """The outages of all loops of one process, in its log and its metrics. Owned by the thread of the loop.

    ``failing`` has the steps that failed because of the shared store, and how often each must succeed.
    """

    def __init__(self, outage: Outage, metrics: SignerMetrics) -> None:
        self._outage = outage
        self._metrics = metrics
        self._role = ""
        self.failing: dict[Step, int] = {}

    def failed(self, error: KtError, step: Step) -> None:
        """Note that ``step`` ended the loop. ``keep_trying`` logs the error."""
        kind = kind_of(error)
        if kind == "store":
            wrong = step is Step.PATROL and isinstance(error, UnverifiedRowError)
            self.failing[step] = max(self.failing.get(step, 0), PATROLS if wrong else 1)
        self._metrics.role(active=False)
        self._metrics.waits(kind)

    def reached(self) -> None:
        """Note that the log has answered a new loop, which has a replay before it perhaps."""
        self._show()

    def succeeded(self, done: Mapping[Step, int]) -> None:
        """Note that a loop has joined the group or waits for its place, and how often each step succeeded."""
        self.failing = {step: need for step, need in self.failing.items() if done.get(step, 0) < need}
        if self.failing:
            self._outage.log_over()
        else:
            self._outage.over()
        self._show()

    def _show(self) -> None:
        """Show what the signer waits for. After a wrong row that the patrol found it signs nevertheless."""
        self._metrics.waits("store" if self.failing.keys() - {Step.PATROL} else None)

    def became(self, role: str, **more: int) -> None:
        """Log the role of a new loop. During an outage of the shared store only a change is logged."""
        if role != self._role or not self.failing:
            _LOG.info(role, **more)
        self._role = role
