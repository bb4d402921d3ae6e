"""The ledger: what a directory has published, in tables, folded from its logs and replayed.

``store`` is the interface of a store, ``rocks`` the store on disk, ``tables`` what it holds under which keys.
``ledger`` has the committed state, ``fold`` makes an epoch of its items, ``replay`` follows both logs and
verifies every head, ``proofs`` answers readers. ``checks``, ``configs`` and ``anchor`` compare the state with
its head, with the pinned key and with the event log.
"""
