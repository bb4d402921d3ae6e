"""The ledger: what a directory has published, in tables, folded from its logs and replayed.

``store`` is what a database has to promise, ``rocks`` keeps them on disk. ``ledger`` holds the committed
state, ``fold`` makes an epoch of its items, ``replay`` follows both logs and verifies every head.
"""
