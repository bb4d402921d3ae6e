"""Streams on disk: storage, transactions, group commit, reading."""
