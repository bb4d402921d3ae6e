"""What a store remembers of accounts: read, and moved on by a verified lookup."""

from __future__ import annotations

from kt_es.client.memory import KIND, Account, remember, verify_memory
from kt_es.client.state import StateStore
from kt_es.client.trust import Lookup
from kt_es.client.trusted import Trusted
from kt_es.errors import ConfigError, MalformedError


def recalled(store: StateStore, index: bytes) -> Account | None:
    """What ``store`` remembers of the account at ``index``. Raises ``ConfigError`` if that is damaged."""
    data = store.recall(KIND, index)
    try:
        return None if data is None else Account.decode(data)
    except MalformedError as error:
        # Beginning anew in silence would throw away what protects from an account's second face.
        raise ConfigError(f"what this client remembers of the account is damaged: {error}") from None


def keep_sight(store: StateStore, trusted: Trusted, lookup: Lookup) -> None:
    """Remember what ``lookup`` shows, compared again with what others have remembered in the meantime."""
    account, sight = lookup.before, lookup.sight
    while (after := remember(account, sight)) != account:
        before = None if account is None else account.encode()
        # The first sight of an entry has to last. That it still stood there later, each lookup finds again.
        synced = account is None or account.first.entry != after.first.entry
        if store.exchange(KIND, lookup.index, before, after.encode(), synced=synced):
            return
        account = recalled(store, lookup.index)
        verify_memory(trusted.origin, trusted.configs, lookup.index, account, sight)
