"""Writes docs/API.md from the signatures and docstrings of ``kt_es.client``: ``python -m tools.api_page``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kt_es.client
from kt_es.client import AsyncClient, Client, StateStore

PAGE = Path(__file__).parents[1] / "docs/API.md"

_INTRODUCTION = """\
# The names of kt_es.client

[LIBRARY](LIBRARY.md) explains how these names are used together, and which errors every call can raise.
`python -m tools.api_page` writes this page from the code; a test compares the two.
"""

# The methods of the class are described once, with its interface.
_INTERFACES = {"AsyncClient": Client, "FileStateStore": StateStore, "MemoryStateStore": StateStore}
_SECTIONS = ("Args", "Attributes", "Returns", "Raises")
_WIDTH = 132


def page() -> str:
    """Return the text of docs/API.md."""
    parts = [_INTRODUCTION]
    parts += ["\n".join(_class(name, getattr(kt_es.client, name))) for name in kt_es.client.__all__]
    return "\n\n".join(parts)


def _class(name: str, kind: type) -> Iterator[str]:
    yield f"## {name}\n"
    yield from _documentation(kind)
    shared = _INTERFACES.get(name)
    if shared:
        yield f"The methods of `{shared.__name__}` are described there.\n"
    if not getattr(kind, "_is_protocol", False):
        yield f"```python\n{_signature(name, vars(kind)['__init__'])}\n```\n"
    for member, value in vars(kind).items():
        if member.startswith("_") or hasattr(shared, member):
            continue
        if isinstance(value, property):
            returns = inspect.signature(value.fget or page).return_annotation
            yield f"### {name}.{member}\n\n```python\n{member}: {returns}\n```\n"
            yield from _documentation(value)
            continue
        function = getattr(value, "__func__", value)
        if not inspect.isfunction(function):
            continue
        yield f"### {name}.{member}\n"
        yield f"```python\n{_signature(member, function, is_async=kind is AsyncClient)}\n```\n"
        yield from _documentation(value)


def _signature(name: str, function: Callable[..., Any], *, is_async: bool = False) -> str:
    """Return the definition of ``function`` without ``self`` or ``cls``, in lines that fit."""
    signature = inspect.signature(function)
    parameters: list[str] = []
    keyword_only = False
    for parameter in list(signature.parameters.values())[1:]:
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            parameters.append("*")
            keyword_only = True
        default = parameter.default
        if default is parameter.empty:
            shown = ""
        elif inspect.isfunction(default):
            shown = f" = {default.__name__}"
        else:
            shown = f" = {default!r}"
        parameters.append(f"{parameter.name}: {parameter.annotation}{shown}")
    returns = "" if name[0].isupper() else f" -> {signature.return_annotation}"
    begin = f"{'async ' if is_async else ''}{name}("
    line = f"{begin}{', '.join(parameters)}){returns}"
    if len(line) <= _WIDTH:
        return line
    return "\n".join((begin, *(f"    {parameter}," for parameter in parameters), f"){returns}"))


def _documentation(documented: Any) -> Iterator[str]:
    """Yield the docstring as Markdown: paragraphs, and a list for each section in Google style."""
    text = (inspect.getdoc(documented) or "").replace("``", "`")
    for block in re.split(r"\n\n", text):
        title, _, rest = block.partition("\n")
        if title.rstrip(":") not in _SECTIONS:
            if block:
                yield block.replace("\n", " ") + "\n"
            continue
        yield f"{title}\n"
        for item in re.split(r"\n(?=    \S)", f"\n{rest}"):
            if item.strip():
                term, _, explanation = " ".join(item.split()).partition(": ")
                yield f"- `{term}`: {explanation}" if explanation else f"- {term}"
        yield ""


if __name__ == "__main__":
    PAGE.write_text(page())
