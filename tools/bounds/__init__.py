"""Epochs of a million items through real processes: memory, time and the size of the log stay bounded."""
