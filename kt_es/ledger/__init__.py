"""The ledger: what a directory has published, in tables, folded from its logs and replayed.

``store`` is the interface of a store, ``rocks`` the store on disk, ``tables`` what it holds under which keys.
``ledger`` has the committed state and its proofs. ``fold`` makes an epoch of its items, ``replay`` follows
both logs and verifies every head. ``anchor`` compares the state with its head and with the event log.
"""
