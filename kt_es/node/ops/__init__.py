"""Upkeep and watching: backup, check, scavenge, metrics, limits."""
