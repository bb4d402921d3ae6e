"""The requests under way at a front end, over all interfaces.

Each request has a slot, and one with a large answer has a second slot until the answer is sent.

Only the thread of the event loop uses them.
"""

from __future__ import annotations

from prometheus_client import Counter

from kt_es.api.operations import ProblemReason
from kt_es.server import limits
from kt_es.server.clients import Clients
from kt_es.server.limits import Route
from kt_es.server.responses import Problem, too_many


class Slots:
    """``clients`` counts the requests of each client; ``refused`` counts refusals by reason."""

    def __init__(self, clients: Clients, refused: Counter) -> None:
        self.clients = clients
        self.requests = 0
        self.large = 0
        self._refused = refused

    def take(self, client: str, route: Route, size: int) -> Slot | Problem:
        """Return the slot of a request with ``size`` bytes of body, or the problem that refuses the request.

        The caller releases the slot, both parts of it.
        """
        wait = self.clients.enter(client, route, size)
        if wait is not None:
            self._refused.labels("rate").inc()
            return too_many(wait)
        slot = Slot(self, client, route)
        if self.requests <= limits.MAX_REQUESTS and self.large <= limits.MAX_LARGE:
            return slot
        slot.end()
        self._refused.labels("busy").inc()
        detail = "this front end has too many requests"
        return Problem(503, ProblemReason.UNAVAILABLE, detail, retry_after=1.0)


class Slot:
    """The slot of one request among those under way. Releasing it twice does nothing."""

    def __init__(self, slots: Slots, client: str, route: Route) -> None:
        self._slots = slots
        self._client = client
        self._request = True
        self._large = route.large
        slots.requests += 1
        slots.large += route.large

    def release(self) -> None:
        """Give the slot to others: the answer is ready, or waits for a verdict."""
        if self._request:
            self._request = False
            self._slots.requests -= 1
            self._slots.clients.leave(self._client, request=True)

    def charge(self, cost: float) -> None:
        """Take ``cost``, in lookups, from what the client may use."""
        self._slots.clients.charge(self._client, cost)

    def end(self) -> None:
        """Release what is left: the answer is sent, or nobody waits for it."""
        self.release()
        if self._large:
            self._large = False
            self._slots.large -= 1
            self._slots.clients.leave(self._client, large=True)
