"""Commands of the owners of accounts: keys, put, revoke, erase, import, watch."""
