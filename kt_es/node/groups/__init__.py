"""Persistent subscriptions: groups of consumers."""
