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
        self.refused = refused

    def take(self, client: str, route: Route, size: int) -> Slot | Problem:
        """Return the slot of a request with ``size`` bytes of body, or the problem that refuses the request.

        The caller ends the slot.
        """
        slot = self.arrive(client, route, size)
        if isinstance(slot, Problem):
            return slot
        busy = slot.whole()
        return slot if busy is None else busy

    def arrive(self, client: str, route: Route, size: int = 0) -> Slot | Problem:
        """Return the slot of a request whose body has not arrived, or the problem that refuses the request.

        It counts for its client alone until ``Slot.whole``, so slow clients take no slots from others. The
        caller ends the slot. ``size`` is what is known to arrive.
        """
        wait = self.clients.enter(client, route, size)
        if wait is None:
            return Slot(self, client, route)
        self.refused.labels("rate").inc()
        return too_many(wait)


class Slot:
    """The slot of one request among those under way. Releasing it twice does nothing."""

    def __init__(self, slots: Slots, client: str, route: Route) -> None:
        self._slots = slots
        self._client = client
        self._large = route.large
        # What this slot is counted in now.
        self._is_counted = False
        self._has_request = True
        self._has_large = route.large
        self._is_whole = False

    def whole(self, size: int = 0) -> Problem | None:
        """Count the request among all, since it has arrived. Return the problem if there are too many.

        Then the slot has ended. ``size`` are the bytes that were not known to ``arrive``.
        """
        if size:
            self.charge(size / limits.BYTES_OF_LOOKUP)
        self._slots.requests += 1
        self._slots.large += self._large
        self._is_counted = self._is_whole = True
        if self._slots.requests <= limits.MAX_REQUESTS and self._slots.large <= limits.MAX_LARGE:
            return None
        self.end()
        self._slots.refused.labels("busy").inc()
        detail = "this front end has too many requests"
        return Problem(503, ProblemReason.UNAVAILABLE, detail, retry_after=1.0)

    def pass_on(self) -> None:
        """Give the slot to other clients: the answer is ready. Its own client still has the request."""
        if self._is_counted:
            self._is_counted = False
            self._slots.requests -= 1

    def release(self) -> None:
        """Give the slot to others: the request waits for a verdict, or its answer is ready."""
        self.pass_on()
        if self._has_request:
            self._has_request = False
            self._slots.clients.leave(self._client, request=True)

    def charge(self, cost: float) -> None:
        """Take ``cost``, in lookups, from what the client may use."""
        self._slots.clients.charge(self._client, cost)

    def end(self) -> None:
        """Release what is left: the answer is sent, or nobody waits for it."""
        self.release()
        if self._has_large:
            self._has_large = False
            self._slots.large -= self._is_whole
            self._slots.clients.leave(self._client, large=True)
