"""The errors of this package."""

from __future__ import annotations


class CassandraError(Exception):
    """A cluster could not be started or did not do what was asked."""


class NotInstalledError(CassandraError):
    """This machine lacks what Cassandra needs, and it cannot be fetched. The message says what to do."""
