"""The errors of this package."""

from __future__ import annotations


class CassandraError(Exception):
    """A cluster could not be started or did not do what was asked."""


class NotInstalledError(CassandraError):
    """This machine lacks a program that Cassandra needs. The message says what to install."""
