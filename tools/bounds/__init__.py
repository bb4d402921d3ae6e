"""Checks with real processes that memory, time and log size stay bounded in epochs of a million items."""
