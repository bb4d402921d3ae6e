"""The gate that every call passes: which right it needs, and whether its caller has it.

Rights are checked when a call begins, and in ``BatchAppend`` for each batch; an open subscription is not
checked again. A call that is not listed here is for operators.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from kt_es.eventstore.rights import json_object, taken_defaults, taken_of
from kt_es.node.access.acl import ADMIN, ALL, Caller, Permission, allows
from kt_es.node.access.logins import Logins
from kt_es.node.refusals import access_denied, invalid
from kt_es.node.rpc.append_messages import stream_name
from kt_es.node.store.log import NodeLog
from kt_es.node.store.reading import stored_at
from kt_es.node.store.records import content_of
from kt_es.node.store.transaction import META

_CACHED = 10_000  # parsed metadata kept
_STREAMS = "event_store.client.streams.Streams."
_GROUPS = "event_store.client.persistent_subscriptions.PersistentSubscriptions."


class Level(Enum):
    """The needs of calls that need no right on a stream."""

    ANYONE = 0
    USER = 1
    OPERATOR = 2


@dataclass(frozen=True, slots=True)
class Right:
    """A right on a stream, or on ``$all``."""

    stream: str
    permission: Permission


Need = Level | Right

_LEVELS = {
    "event_store.client.gossip.Gossip.Read": Level.ANYONE,
    _STREAMS + "BatchAppend": Level.ANYONE,  # each batch is checked by itself
    _GROUPS + "GetInfo": Level.USER,
    _GROUPS + "List": Level.USER,
}


def need(call: str, request: Any) -> Need:
    """Return the right that ``call``, a full name, needs with this first request."""
    if call == _STREAMS + "Append":
        return Right(stream_name(request.options.stream_identifier), Permission.WRITE)
    if call in {_STREAMS + "Delete", _STREAMS + "Tombstone"}:
        return Right(stream_name(request.options.stream_identifier), Permission.DELETE)
    if call == _STREAMS + "Read":
        kind = request.options.WhichOneof("stream_option")
        if kind == "all":
            return Right(ALL, Permission.READ)
        if kind != "stream":
            raise invalid("neither a stream nor $all is asked for")
        return Right(stream_name(request.options.stream.stream_identifier), Permission.READ)
    if call == _GROUPS + "Read":
        if request.options.WhichOneof("stream_option") == "all":
            return Right(ALL, Permission.READ)
        return Right(stream_name(request.options.stream_identifier), Permission.READ)
    return _LEVELS.get(call, Level.OPERATOR)


class Access:
    """The gate of one node. ``tls``: only callers who log in have rights, even if there are no users."""

    def __init__(self, log: NodeLog, logins: Logins, tls: bool) -> None:
        self._log = log
        self._logins = logins
        self._tls = tls
        self._parsed: OrderedDict[str, tuple[tuple[int, int], Mapping[str, object]]] = OrderedDict()

    @property
    def open(self) -> bool:
        """Whether everybody may do everything: there is neither TLS nor a file of users."""
        return not self._tls and not self._logins.exist

    async def caller(self, context: Any) -> Caller:
        """Return the caller of ``context``; raise ``Refusal`` if the credentials are wrong."""
        if self.open:
            return ADMIN
        return await self._logins.caller(context.invocation_metadata() or ())

    def allowed(self, caller: Caller, wanted: Need) -> bool:
        match wanted:
            case Right(stream, permission):
                return allows(caller, stream, permission, self._metadata, self._defaults)
            case Level.ANYONE:
                return True
            case Level.USER:
                return caller.known
            case Level.OPERATOR:
                return caller.is_operator

    def check(self, caller: Caller, wanted: Need) -> None:
        """Raise a ``Refusal`` unless ``caller`` has what is ``wanted``."""
        if not self.allowed(caller, wanted):
            raise access_denied()

    async def admit(self, call: str, request: Any, context: Any) -> None:
        """Raise a ``Refusal`` unless the caller may make ``call`` with this request."""
        if not self.open:
            self.check(await self.caller(context), need(call, request))

    async def admitted(self, call: str, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """Pass ``requests`` on; raise a ``Refusal`` unless the first one is allowed."""
        first = True
        async for request in requests:
            if first:
                await self.admit(call, request, context)
                first = False
            yield request

    def _metadata(self, stream: str) -> Mapping[str, object]:
        return self._last(META + stream, taken_of)

    def _defaults(self, stream: str) -> Mapping[str, object]:
        return self._last(stream, lambda _type, data: taken_defaults(json_object(data)))

    def _last(self, stream: str, read: Callable[[str, bytes], Mapping[str, object]]) -> Mapping[str, object]:
        """Return ``read`` of the last event of a stream; empty if there is no event."""
        head = self._log.head(stream)
        if not head.exists:
            return {}
        version = head.number, head.last
        known = self._parsed.get(stream)
        if known is not None and known[0] == version:
            self._parsed.move_to_end(stream)
            return known[1]
        stored = stored_at(self._log, stream, head.last)
        values = {} if stored is None else read(*content_of(stored))
        self._parsed[stream] = version, values
        if len(self._parsed) > _CACHED:
            self._parsed.popitem(last=False)
        return values
