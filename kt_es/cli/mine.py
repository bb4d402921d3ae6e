"""Whose keys are the user's own: those in the key store, and those that are declared by their ids."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from kt_es.client.keystore import KeyStore
from kt_es.client.vouching import Mine
from kt_es.errors import ConfigError

_KEY_ID = re.compile(r"[0-9a-fA-F]{16}")

_F = TypeVar("_F", bound=Callable[..., Any])


def mine_option(command: _F) -> _F:
    return click.option(
        "--mine",
        multiple=True,
        metavar="NAME|KEYID",
        help="A signing key of yours, may be repeated. A NAME restricts yours to the named keys of --keys. "
        "A KEYID (16 hex digits) declares a key whose private half is elsewhere.",
    )(command)


def read_mine(keys: Path, values: Iterable[str]) -> Mine:
    """The keys that ``--mine`` says are the user's own; without names all in the key store."""
    store = KeyStore(keys)
    names = [value for value in values if not _KEY_ID.fullmatch(value)]
    stored = [store.get(name) for name in names] if names else store.list()
    return Mine(frozenset(key.public for key in stored), key_ids(set(values).difference(names)))


def key_ids(values: Iterable[str]) -> frozenset[bytes]:
    """The key ids that an option gives in hex."""
    for value in values:
        if not _KEY_ID.fullmatch(value):
            raise ConfigError(f"{value!r} is no key id: a key id has 16 hex digits")
    return frozenset(bytes.fromhex(value) for value in values)
