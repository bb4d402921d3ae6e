"""As much of CDDL (RFC 8610) as docs/formats.cddl uses, as a validator.

The installed validator reads the schema, but gets choices inside arrays and ``.cbor`` wrong, so this one
decides. It knows rules, choices, arrays with occurrences and member names, literals, ranges, ``&`` over a
group of numbers, and the controls ``.size`` and ``.cbor``; anything else is a ``SyntaxError``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial

from kt_es.errors import MalformedError
from kt_es.formats.codec import UINT_MAX, Value, decode

Matcher = Callable[[Value], bool]
Member = tuple[int, int, Matcher]

_TOKEN = re.compile(
    r"\s*(?:;[^\n]*\n\s*)*(?P<token>[0-9]*\*[0-9]*|\.\.|\.[a-z]+|[0-9]+|\"[^\"]*\"|[a-z][a-z0-9-]*|[=/:,()\[\]&])"
)


class Schema:
    """The rules of a CDDL text; ``valid(rule, data)`` says whether CBOR bytes match a rule."""

    def __init__(self, text: str) -> None:
        self._tokens = self._split(text)
        self._at = 0
        self._rules: dict[str, Matcher] = {
            "uint": lambda value: isinstance(value, int) and 0 <= value <= UINT_MAX,
            "bytes": lambda value: isinstance(value, bytes),
            "text": lambda value: isinstance(value, str),
            "null": lambda value: value is None,
        }
        self.used: set[str] = set()
        self.names: list[str] = []
        while self._at < len(self._tokens):
            name = self._take()
            self._expect("=")
            if name in self._rules:
                raise SyntaxError(f"{name} is defined twice")
            self._rules[name] = self._type()
            self.names.append(name)
        missing = self.used - self._rules.keys()
        if missing:
            raise SyntaxError(f"undefined: {', '.join(sorted(missing))}")

    def valid(self, rule: str, data: bytes) -> bool:
        try:
            return self._rules[rule](decode(data, rule))
        except MalformedError:
            return False

    @staticmethod
    def _split(text: str) -> list[str]:
        tokens, at, text = [], 0, re.sub(r";[^\n]*", "", text).rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise SyntaxError(f"cannot read {text[at : at + 40]!r}")
            tokens.append(match["token"])
            at = match.end()
        return tokens

    def _next(self, ahead: int = 0) -> str:
        return self._tokens[self._at + ahead] if self._at + ahead < len(self._tokens) else ""

    def _take(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1]

    def _expect(self, token: str) -> None:
        if self._take() != token:
            raise SyntaxError(f"{token!r} expected before {self._tokens[self._at - 1 : self._at + 4]}")

    def _type(self) -> Matcher:
        choices = [self._controlled()]
        while self._next() == "/":
            self._take()
            choices.append(self._controlled())
        return choices[0] if len(choices) == 1 else lambda value: any(match(value) for match in choices)

    def _controlled(self) -> Matcher:
        target = self._plain()
        if self._next() == ".size":
            self._take()
            low, high = self._sizes()
            return lambda value: target(value) and low <= _size(value) <= high
        if self._next() == ".cbor":
            self._take()
            content = self._plain()
            return lambda value: target(value) and _holds(value, content)
        return target

    def _sizes(self) -> tuple[int, int]:
        if self._next() != "(":
            size = int(self._take())
            return size, size
        self._take()
        low = int(self._take())
        self._expect("..")
        high = int(self._take())
        self._expect(")")
        return low, high

    def _plain(self) -> Matcher:
        token = self._take()
        if token == "[":
            return self._array(list(self._members("]")))
        if token == "&":
            self._expect("(")
            numbers = [match for _, _, match in self._members(")")]
            return lambda value: any(match(value) for match in numbers)
        if token.startswith('"'):
            return lambda value: value == token[1:-1]
        if token.isdigit():
            low = high = int(token)
            if self._next() == "..":
                self._take()
                high = int(self._take())
            return lambda value: isinstance(value, int) and low <= value <= high
        if not token[0].isalpha():
            raise SyntaxError(f"a type expected instead of {token!r}")
        self.used.add(token)
        return partial(self._named, token)

    def _named(self, rule: str, value: Value) -> bool:
        return self._rules[rule](value)

    def _members(self, end: str) -> Iterable[Member]:
        while self._next() != end:
            low, high = 1, 1
            if "*" in self._next():
                first, last = self._take().split("*")
                low, high = int(first or 0), int(last or UINT_MAX)
            if self._next(1) == ":":
                self._at += 2
            yield low, high, self._type()
            if self._next() == ",":
                self._take()
        self._take()

    @staticmethod
    def _array(members: list[Member]) -> Matcher:
        def rest(values: list[Value], member: int) -> bool:
            if member == len(members):
                return not values
            low, high, match = members[member]
            count = 0
            while count < min(high, len(values)) and match(values[count]):
                count += 1
            # Every repetition here is the last member of its array, so the longest one is the right one.
            return count >= low and rest(values[count:], member + 1)

        return lambda value: isinstance(value, list) and rest(value, 0)


def _size(value: Value) -> int:
    if isinstance(value, bytes):
        return len(value)
    return len(value.encode()) if isinstance(value, str) else -1


def _holds(value: Value, content: Matcher) -> bool:
    try:
        return isinstance(value, bytes) and content(decode(value, "content"))
    except MalformedError:
        return False
